// SessionStore: what pipelines keep between the requests of one session.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "graph/tensor.h"

namespace plexus {

struct SessionLimits {
  size_t max_sessions = 10'000;
  size_t max_bytes = size_t{1} << 30;  // of all sessions' state
  size_t max_waiting = 64;             // requests that wait for their turn in one session
};

// Sessions take requests one at a time, in the order in which they came; different sessions run
// beside each other. A session's state changes only by Commit, so a request that fails or ends
// without it leaves no trace. A session begins with the Commit of a request that starts it, and is
// forgotten at the Commit of one that ends it, or when it was idle for too long.
//
// Thread-safe. Turns are called outside the store's lock, by whichever thread made room for them.
class SessionStore {
 public:
  using State = std::vector<Tensor>;
  using Ticket = uint64_t;  // of one request

  // Borrows the clock. `wake` (may be null) is called when Tick is due earlier than it last said;
  // it must not call back.
  SessionStore(const Clock& clock, SessionLimits limits, std::function<void()> wake = nullptr);

  struct Entrant {
    // Who owns it and its id; equal strings are one session. Does not begin with a zero byte.
    std::string session;
    std::string owner;                         // for EndAll; of equal sessions the same
    std::string name;                          // for messages: "sequence 5 of 'p'"
    bool start = false;                        // begin anew, whether or not it is there
    bool end = false;                          // forget the session when this request has succeeded
    State initial;                             // for a start
    Duration idle = std::chrono::seconds(60);  // how long it may stand unused from now on
    std::optional<TimePoint> give_up_at;       // the longest that it waits
  };
  // The state to begin with, when the request may run; it then holds its turn until EndTurn. Or why
  // not: kInvalidArgument when nothing was started or it has gone, kResourceExhausted when there
  // are too many sessions, kUnavailable when too many wait, kDeadlineExceeded.
  using Turn = std::function<void(Result<State>)>;

  Ticket NewTicket();
  // Calls `turn` once, perhaps before it returns, unless Abandon comes first.
  void Enter(Ticket ticket, Entrant entrant, Turn turn);
  // Keeps copies of `next` for the session in which `ticket` has its turn; once per turn.
  // kResourceExhausted when all sessions together would hold too much: what was there stays. What
  // EndAll was given, when that has ended the session meanwhile.
  Status Commit(Ticket ticket, const State& next);
  // Ends the turn of `ticket`, if it has one. What is returned (perhaps null) calls the next one's
  // turn; the caller runs it once it has nothing more to do.
  [[nodiscard]] std::function<void()> EndTurn(Ticket ticket);
  // Of a request that waits for its turn: true, and that will never be called. Else false.
  bool Abandon(Ticket ticket);

  // Ends all sessions of the owner now: their state is forgotten, those that wait fail with `why`,
  // the one that has the turn will at its Commit. Who enters later finds none of them. How many had
  // a state.
  size_t EndAll(std::string_view owner, const Status& why);

  // Fails those that have waited too long and forgets idle sessions. When it is due again, if at
  // all as things stand.
  std::optional<TimePoint> Tick();

  struct Stats {
    size_t sessions = 0, bytes = 0, waiting = 0;
    uint64_t begun = 0, ended = 0, expired = 0;  // so far
    uint64_t refused = 0;                        // requests, for one of the limits
  };
  Stats stats() const;

 private:
  struct Waiter {
    Ticket ticket;
    Entrant entrant;
    Turn turn;
  };
  struct Session {
    std::optional<State> state;  // none before its first Commit
    size_t bytes = 0;
    bool counted = false;  // among the sessions that there may be
    std::string owner;
    Status ended;  // not OK: why nothing may be committed any more
    std::optional<Waiter> running;
    std::deque<Waiter> waiting;
    TimePoint idle_until{};
  };
  using Sessions = std::map<std::string, Session>;
  // Turns to call once the lock is released.
  using Calls = std::vector<std::pair<Turn, Result<State>>>;

  void BeginNextLocked(Sessions::iterator it, Calls* calls);
  Status MayRunLocked(const Session& session, const Entrant& entrant) const;
  void TickLocked(Calls* calls);
  void DropWaiterLocked(Session& session, std::deque<Waiter>::iterator at);
  void ForgetLocked(Session& session);
  bool DueEarlierLocked();
  static void Make(Calls calls);

  using Due = std::pair<TimePoint, Ticket>;  // ticket 0: the session's idleness

  const Clock& clock_;
  const SessionLimits limits_;
  const std::function<void()> wake_;
  mutable std::mutex mutex_;  // guards everything below
  Ticket next_ticket_ = 1;
  Sessions sessions_;
  std::map<Ticket, std::string> where_;        // of requests that wait or run
  std::set<std::pair<Due, std::string>> due_;  // idle sessions and waiters with a limit
  std::optional<TimePoint> told_;              // what Tick last said
  size_t counted_ = 0, bytes_ = 0, waiting_ = 0;
  uint64_t begun_ = 0, ended_ = 0, expired_ = 0, refused_ = 0;
};

}  // namespace plexus
