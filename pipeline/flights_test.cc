#include "pipeline/flights.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "pipeline/graph_maker.h"

namespace plexus {
namespace {

using Tensors = std::vector<Tensor>;

struct Rider : FlightRider {
  void OnLanded(const Result<Tensors>& outputs, Duration) override {
    status = outputs.status();
    if (outputs.ok()) value = (*outputs)[0].data<float>()[0];
    ++landed;  // publishes the others
  }
  std::atomic<int> landed{0};
  Status status;
  float value = 0;
};

struct Asker {
  FlightTable::Ask ask;
  Tensors inputs = {Floats({2}, {1, 2})};
  Rider rider;
  bool leads = false;
  FlightTable::FlightPtr flight;

  Asker() { ask.work = 7; }
  void Join(FlightTable& table) {
    ask.inputs = &inputs;
    flight = table.Join(ask, &rider, &leads);
  }
};

Tensors Answer(float value) { return {Floats({1}, {value})}; }

TEST(FlightTest, WhoAsksForTheSameRidesAlongAndIsToldOnce) {
  FlightTable table;
  Asker leader, second, third;
  for (Asker* a : {&leader, &second, &third}) a->Join(table);
  EXPECT_TRUE(leader.leads);
  EXPECT_FALSE(second.leads || third.leads);
  EXPECT_EQ(table.stats().in_flight, 1u);
  table.Land(leader.flight, Answer(5));
  EXPECT_EQ(second.rider.landed, 1);
  EXPECT_EQ(third.rider.value, 5);
  EXPECT_EQ(leader.rider.landed, 0) << "it knows";
  EXPECT_EQ(table.stats().in_flight, 0u);
  EXPECT_EQ(table.stats().joined, 2u);
  Asker late;
  late.Join(table);
  EXPECT_TRUE(late.leads) << "what has landed is over";
}

TEST(FlightTest, AFailureIsToldAsWell) {
  FlightTable table;
  Asker leader, rider;
  leader.Join(table);
  rider.Join(table);
  table.Land(leader.flight, InternalError("lost"));
  EXPECT_EQ(rider.rider.status.code(), StatusCode::kInternal);
}

TEST(FlightTest, WhoDiffersInAnythingFliesAlone) {
  const std::pair<const char*, void (*)(Asker&)> differences[] = {
      {"work", [](Asker& a) { a.ask.work = 8; }},
      {"tenant", [](Asker& a) { a.ask.tenant = TenantId(3); }},
      {"who had the tenant's id before", [](Asker& a) { a.ask.tenant_since = 5; }},
      {"value",
       [](Asker& a) {
         a.inputs = {Floats({2}, {1, 3})};
       }},
      {"sign of zero",
       [](Asker& a) {
         a.inputs = {Floats({2}, {1, -0.0f})};
       }},
      {"shape",
       [](Asker& a) {
         a.inputs = {Floats({1, 2}, {1, 2})};
       }},
      {"dtype",
       [](Asker& a) {
         a.inputs = {Tensor::VectorInt64({1, 2})};
       }},
      {"count",
       [](Asker& a) {
         a.inputs.push_back(Floats({2}, {1, 2}));
       }},
      {"absent", [](Asker& a) { a.inputs = {Tensor()}; }},
  };
  for (const auto& [what, change] : differences) {
    FlightTable table;
    Asker leader, other;
    change(other);
    leader.Join(table);
    other.Join(table);
    EXPECT_TRUE(other.leads) << what;
  }
}

struct Leader : FlightLeader {
  void Raise(uint64_t flight, const Urgency& urgency) override {
    raised.emplace_back(flight, urgency);
  }
  void AddPayer(uint64_t flight, TenantId tenant) override { payers.emplace_back(flight, tenant); }
  std::vector<std::pair<uint64_t, Urgency>> raised;
  std::vector<std::pair<uint64_t, TenantId>> payers;
};

TEST(FlightTest, ALeaderHearsOfRidersThatAreMoreUrgent) {
  const auto at = [](int ms) { return TimePoint(std::chrono::milliseconds(ms)); };
  struct Case {
    Urgency leader, rider;
    bool raised;
  };
  const Case cases[] = {
      {{at(5), 0}, {at(5), 0}, false},
      {{at(5), 0}, {at(9), 0}, false},
      {{at(5), 0}, {std::nullopt, 0}, false},
      {{at(9), 0}, {at(5), 0}, true},
      {{std::nullopt, 0}, {at(5), 0}, true},
      {{std::nullopt, 0}, {std::nullopt, 1}, true},
      {{std::nullopt, 3}, {std::nullopt, 3}, false},
  };
  for (const Case& c : cases) {
    FlightTable table;
    const auto leader = std::make_shared<Leader>();
    Asker first, rider, late;
    first.ask.urgency = c.leader;
    first.ask.leader = leader;
    first.ask.flight = 42;
    rider.ask.urgency = c.rider;
    first.Join(table);
    rider.Join(table);
    EXPECT_FALSE(rider.leads);
    ASSERT_EQ(leader->raised.size(), c.raised ? 1u : 0u);
    EXPECT_EQ(table.stats().raised, leader->raised.size());
    if (!c.raised) continue;
    EXPECT_EQ(leader->raised[0].first, 42u);
    EXPECT_EQ(leader->raised[0].second.deadline, c.rider.deadline);
    EXPECT_EQ(leader->raised[0].second.priority, c.rider.priority);
    late.ask.urgency = {c.rider.deadline, c.leader.priority};
    late.Join(table);
    EXPECT_EQ(leader->raised.size(), 1u) << "as urgent already";
  }
}

TEST(FlightTest, TenantsShareOnlyWhereItIsAllowedAndThenTheLeaderHearsWhoPays) {
  FlightTable table(/*across_tenants=*/true);
  const auto told = std::make_shared<Leader>();
  Asker leader, same, rider;
  leader.ask.leader = told;
  leader.ask.flight = 42;
  rider.ask.tenant = TenantId(3);
  leader.Join(table);
  same.Join(table);
  rider.Join(table);
  EXPECT_FALSE(rider.leads);
  EXPECT_TRUE(told->raised.empty());
  EXPECT_EQ(told->payers, (decltype(told->payers){{42, TenantId(3)}}));
}

// Large inputs that look alike to the samples.
TEST(FlightTest, AHashAloneNeverDecides) {
  FlightTable table;
  std::vector<float> values(100'000, 1.0f);
  Asker leader, same, other;
  leader.inputs = {Floats({100'000}, values)};
  same.inputs = {Floats({100'000}, values)};
  values[777] = 2;
  other.inputs = {Floats({100'000}, values)};
  ASSERT_EQ(SampleHash(leader.inputs), SampleHash(other.inputs));
  leader.Join(table);
  same.Join(table);
  other.Join(table);
  EXPECT_FALSE(same.leads);
  EXPECT_TRUE(other.leads);
}

TEST(FlightTest, TextsAreComparedWhole) {
  FlightTable table;
  Asker leader, same, other;
  const std::string text(5000, 'a');
  leader.inputs = {Tensor::FromStrings({1}, {text + "b"})};
  same.inputs = {Tensor::FromStrings({1}, {text + "b"})};
  other.inputs = {Tensor::FromStrings({1}, {text + "c"})};
  leader.Join(table);
  same.Join(table);
  other.Join(table);
  EXPECT_FALSE(same.leads);
  EXPECT_TRUE(other.leads);
}

TEST(FlightTest, WhoLeavesIsNotTold) {
  FlightTable table;
  Asker leader, goes, stays;
  for (Asker* a : {&leader, &goes, &stays}) a->Join(table);
  EXPECT_TRUE(table.Leave(goes.flight, &goes.rider));
  EXPECT_FALSE(table.Leave(goes.flight, &goes.rider)) << "once";
  table.Land(leader.flight, Answer(1));
  EXPECT_EQ(goes.rider.landed, 0);
  EXPECT_EQ(stays.rider.landed, 1);
  EXPECT_FALSE(table.Leave(stays.flight, &stays.rider)) << "too late";
}

// Threads join, leave and land at random; everybody is told once or has left.
TEST(FlightTest, ManyThreadsLoseNobody) {
  FlightTable table;
  std::atomic<int> led{0}, told{0}, left{0};
  std::vector<std::thread> threads;
  constexpr int kEach = 2000;
  for (uint32_t seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      std::vector<std::unique_ptr<Asker>> waiting;
      for (int i = 0; i < kEach; ++i) {
        auto asker = std::make_unique<Asker>();
        asker->ask.work = random() % 2;
        asker->Join(table);
        if (asker->leads) {
          ++led;
          if (random() % 2 == 0) std::this_thread::yield();
          table.Land(asker->flight, Answer(static_cast<float>(asker->ask.work)));
        } else if (random() % 4 == 0 && table.Leave(asker->flight, &asker->rider)) {
          ++left;
        } else {
          waiting.push_back(std::move(asker));
        }
      }
      for (const auto& asker : waiting) {
        while (asker->rider.landed == 0) std::this_thread::yield();
        EXPECT_EQ(asker->rider.landed, 1);
        EXPECT_EQ(asker->rider.value, static_cast<float>(asker->ask.work));
        ++told;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(led + told + left, 4 * kEach);
  EXPECT_EQ(table.stats().in_flight, 0u);
}

}  // namespace
}  // namespace plexus
