// Cutter: where the pipelines are cut into segments. Internal to paths/.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "paths/unit.h"

namespace plexus {

// One cut over all pipelines.
//
// 1. Units of one kind, over all pipelines, form a class; a class's users are the pipelines that
//    hold it.
// 2. An edge is inner when both ends have the same users, both keep rows apart or both mix them,
//    and every occurrence of the reader is fed from that class: then no pipeline sees anything
//    between them.
// 3. A unit's depth counts the cuts behind it. Units of the same users and depth that inner edges
//    connect form a piece; edges between pieces go from lower to higher depth, or between pieces of
//    one depth never: so calls have an order.
// 4. Rows: a class keeps rows apart if it does so wherever it stands (AnalyzeRows). Where a cut
//    would leave a value without a row per entry, what makes that value counts as mixing, and so
//    does what costs less than its dispatch, has no weights and lies beside a mixing piece of the
//    same users. Then 2 and 3 again, until nothing changes.
//
// All decisions are by class, so that all users of a segment are cut alike. Thread-compatible.
class Cutter {
 public:
  // Borrows the graphs, in a fixed order of pipelines. `dispatch_flops`: what a device computes in
  // the time of a dispatch.
  Cutter(std::vector<const UnitGraph*> graphs, double dispatch_flops)
      : graphs_(std::move(graphs)), dispatch_flops_(dispatch_flops) {}

  void Run();

  // Of one pipeline: units per piece, in topological order; pieces in an order in which calls may
  // run.
  const std::vector<std::vector<uint32_t>>& pieces(uint32_t pipeline) const {
    return pieces_[pipeline].units;
  }
  // Whether some pipeline reads this output of the unit outside its piece.
  bool IsExported(uint32_t pipeline, uint32_t unit, uint32_t output) const {
    return exported_.count({class_of_[pipeline][unit], output}) > 0;
  }
  // Whether all of the piece keeps rows apart, as far as the cutter knows; else why not.
  bool KeepsRows(uint32_t pipeline, const std::vector<uint32_t>& piece, std::string* why_not) const;

 private:
  struct Pieces {
    std::vector<uint32_t> of;  // per unit
    std::vector<std::vector<uint32_t>> units;
  };
  static constexpr uint32_t kInput = UINT32_MAX, kSeveral = UINT32_MAX - 1;
  struct Feed {
    uint32_t from = kInput, index = 0;
    friend bool operator==(const Feed&, const Feed&) = default;
  };

  void Classify();
  void MakePrivate(uint32_t pipeline, uint32_t unit);
  void NumberUsers();
  void GiveBackGlue();
  void FindFeeds();
  void FindRows();
  void CutAll();
  void CutPieces(uint32_t pipeline);
  void FindExports();
  bool DemoteImproper();
  bool DemoteCheap();
  bool IsInnerButRows(uint32_t pipeline, uint32_t unit, size_t input) const;
  bool IsInner(uint32_t pipeline, uint32_t unit, size_t input) const;

  const std::vector<const UnitGraph*> graphs_;
  const double dispatch_flops_;
  std::vector<std::vector<uint32_t>> class_of_;       // per pipeline and unit
  std::vector<std::vector<uint32_t>> users_;          // per class: pipelines, ascending
  std::vector<uint32_t> signature_;                   // per class: a number for its set of users
  std::vector<std::vector<Feed>> fed_by_;             // per class and input
  std::vector<bool> rows_;                            // per class: keeps rows apart
  std::vector<Pieces> pieces_;                        // per pipeline
  std::set<std::pair<uint32_t, uint32_t>> exported_;  // (class, output)
};

}  // namespace plexus
