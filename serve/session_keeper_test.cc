#include "serve/session_keeper.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace plexus {
namespace {

constexpr uint32_t kSessions = 4, kThreads = 4;

// Threads that enter, commit, leave and give up at random. A session's state is how often it was
// committed since its last start, and one request at a time has it.
class Stress {
 public:
  Stress() : keeper_(RealClock::Get(), Limits()) {}

  void Run(uint32_t seed, int requests) {
    std::mt19937 random(seed);
    for (int i = 0; i < requests; ++i) {
      const uint32_t id = random() % kSessions;
      SessionStore::Entrant entrant;
      entrant.session = std::to_string(id);
      entrant.name = "session " + entrant.session;
      entrant.start = random() % 3 == 0;
      entrant.end = random() % 8 == 0;
      entrant.initial = {Tensor::ScalarInt64(0)};
      entrant.idle = std::chrono::microseconds(random() % 300);
      if (random() % 4 == 0) {
        entrant.give_up_at = RealClock::Get().Now() + std::chrono::microseconds(random() % 100);
      }
      const bool commits = random() % 4 != 0;
      const bool abandons = random() % 4 == 0;
      const SessionStore::Ticket ticket = store().NewTicket();
      open_.fetch_add(1);
      store().Enter(ticket, entrant,
                    [this, id, ticket, commits, entrant](Result<SessionStore::State> state) {
                      Turn(id, ticket, commits, entrant, std::move(state));
                    });
      if (abandons && store().Abandon(ticket)) open_.fetch_sub(1);
    }
  }
  SessionStore& store() { return keeper_.store(); }
  int open() const { return open_.load(); }
  int turns() const { return turns_.load(); }

 private:
  static SessionLimits Limits() {
    SessionLimits limits;
    limits.max_sessions = kSessions - 1;
    limits.max_waiting = 3;
    return limits;
  }
  void Turn(uint32_t id, SessionStore::Ticket ticket, bool commits,
            const SessionStore::Entrant& entrant, Result<SessionStore::State> state) {
    if (!state.ok()) {
      open_.fetch_sub(1);
      return;
    }
    // Relaxed: it must be the store that orders those who have a session one after the other.
    EXPECT_FALSE(busy_[id].exchange(true, std::memory_order_relaxed)) << "two have one session";
    turns_.fetch_add(1);
    const int64_t seen = (*state)[0].data<int64_t>()[0];
    EXPECT_EQ(seen, entrant.start ? 0 : committed_[id]);
    if (commits) {
      EXPECT_TRUE(store().Commit(ticket, {Tensor::ScalarInt64(seen + 1)}).ok());
      committed_[id] = seen + 1;
    }
    busy_[id].store(false, std::memory_order_relaxed);
    const std::function<void()> next = store().EndTurn(ticket);
    open_.fetch_sub(1);
    if (next) next();
  }

  SessionKeeper keeper_;
  std::array<std::atomic<bool>, kSessions> busy_{};
  std::array<int64_t, kSessions> committed_{};
  std::atomic<int> open_{0}, turns_{0};
};

TEST(SessionKeeperTest, ManyThreadsShareSessionsAndNobodyIsForgotten) {
  Stress stress;
  std::vector<std::thread> threads;
  for (uint32_t seed = 1; seed <= kThreads; ++seed) {
    threads.emplace_back([&, seed] { stress.Run(seed, 1500); });
  }
  for (std::thread& thread : threads) thread.join();
  while (stress.open() > 0) std::this_thread::yield();  // the keeper may be telling somebody
  EXPECT_GT(stress.turns(), 0);
  EXPECT_EQ(stress.store().stats().waiting, 0u);
  EXPECT_LE(stress.store().stats().sessions, kSessions - 1);
}

// Requests that have their turn meanwhile keep nothing, those that wait are told.
TEST(SessionKeeperTest, OwnersSessionsEndWhileTheirRequestsRun) {
  SessionKeeper keeper(RealClock::Get(), {});
  SessionStore& store = keeper.store();
  const Status why = CancelledError("removed");
  std::atomic<int> answers{0};
  const auto ask = [&](uint32_t seed) {
    std::mt19937 random(seed);
    for (int i = 0; i < 1000; ++i) {
      SessionStore::Entrant entrant;
      entrant.owner = random() % 2 == 0 ? "shop" : "other";
      entrant.session = entrant.name = entrant.owner + std::to_string(random() % 3);
      entrant.start = random() % 2 == 0;
      entrant.initial = {Tensor::ScalarInt64(0)};
      const SessionStore::Ticket ticket = store.NewTicket();
      store.Enter(ticket, entrant, [&, ticket](Result<SessionStore::State> state) {
        answers.fetch_add(1);
        if (!state.ok()) return;
        const Status kept = store.Commit(ticket, *state);
        EXPECT_TRUE(kept.ok() || kept.message() == why.message()) << kept.ToString();
        if (const std::function<void()> next = store.EndTurn(ticket)) next();
      });
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t seed = 1; seed <= kThreads; ++seed) threads.emplace_back([&, seed] { ask(seed); });
  while (answers.load() < 1000 * static_cast<int>(kThreads)) store.EndAll("shop", why);
  for (std::thread& thread : threads) thread.join();
  store.EndAll("shop", why);
  EXPECT_LE(store.stats().sessions, 3u);
  EXPECT_EQ(store.stats().bytes, store.stats().sessions * sizeof(int64_t));
  store.EndAll("other", why);
  EXPECT_EQ(store.stats().sessions, 0u);
  EXPECT_EQ(store.stats().bytes, 0u);
  EXPECT_EQ(store.stats().waiting, 0u);
}

// The keeper alone notices: nobody asks the store for anything.
TEST(SessionKeeperTest, WhoWaitsTooLongIsToldAndAnIdleSessionIsForgotten) {
  SessionKeeper keeper(RealClock::Get(), {});
  SessionStore& store = keeper.store();
  SessionStore::Entrant entrant;
  entrant.session = entrant.name = "s";
  entrant.start = true;
  entrant.initial = {Tensor::ScalarInt64(0)};
  entrant.idle = std::chrono::milliseconds(1);
  const SessionStore::Ticket first = store.NewTicket(), second = store.NewTicket();
  store.Enter(first, entrant, [](const Result<SessionStore::State>& s) { EXPECT_TRUE(s.ok()); });
  std::atomic<bool> told{false};
  entrant.give_up_at = RealClock::Get().Now() + std::chrono::milliseconds(1);
  store.Enter(second, entrant, [&told](const Result<SessionStore::State>& s) {
    EXPECT_EQ(s.status().code(), StatusCode::kDeadlineExceeded);
    told.store(true);
    told.notify_one();
  });
  told.wait(false);
  EXPECT_TRUE(store.Commit(first, {Tensor::ScalarInt64(1)}).ok());
  EXPECT_EQ(store.EndTurn(first), nullptr);
  while (store.stats().sessions > 0) std::this_thread::yield();
  EXPECT_EQ(store.stats().expired, 1u);
}

}  // namespace
}  // namespace plexus
