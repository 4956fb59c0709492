#include "pipeline/session_store.h"

#include <gtest/gtest.h>

#include <memory>

namespace plexus {
namespace {

using std::chrono::seconds;

// Requests of sessions as they come and go; a session's state is one number.
class SessionStoreTest : public ::testing::Test {
 protected:
  struct Request {
    SessionStore::Ticket ticket = 0;
    std::optional<Result<SessionStore::State>> turn;
    bool has_turn() const { return turn && turn->ok(); }
    int64_t state() const { return turn->value()[0].data<int64_t>()[0]; }
    std::string error() const { return turn ? turn->status().message() : "waits"; }
  };
  using RequestPtr = std::shared_ptr<Request>;

  static SessionStore::State Number(int64_t n) { return {Tensor::ScalarInt64(n)}; }

  RequestPtr Enter(const std::string& session, bool start = false, bool end = false,
                   std::optional<TimePoint> give_up_at = std::nullopt) {
    auto request = std::make_shared<Request>();
    request->ticket = store_->NewTicket();
    SessionStore::Entrant entrant;
    entrant.session = session;
    entrant.owner = session.substr(0, session.find(' '));
    entrant.name = "sequence " + session;
    entrant.start = start;
    entrant.end = end;
    entrant.initial = Number(0);
    entrant.idle = seconds(60);
    entrant.give_up_at = give_up_at;
    store_->Enter(request->ticket, entrant, [request](Result<SessionStore::State> turn) {
      EXPECT_FALSE(request->turn) << "called twice";
      request->turn = std::move(turn);
    });
    return request;
  }
  RequestPtr Start(const std::string& session) { return Enter(session, true); }
  void Succeed(const RequestPtr& request, int64_t next) {
    ASSERT_TRUE(store_->Commit(request->ticket, Number(next)).ok());
    EndTurn(request);
  }
  void EndTurn(const RequestPtr& request) {
    if (const auto next = store_->EndTurn(request->ticket)) next();
  }
  void Fail(const RequestPtr& request) { EndTurn(request); }

  void Limit(SessionLimits limits) {
    store_ = std::make_unique<SessionStore>(clock_, limits, [this] { ++wakes_; });
  }

  ManualClock clock_;
  int wakes_ = 0;
  std::unique_ptr<SessionStore> store_ =
      std::make_unique<SessionStore>(clock_, SessionLimits(), [this] { ++wakes_; });
};

TEST_F(SessionStoreTest, AStateLastsFromTheStartToTheEnd) {
  RequestPtr r = Start("a");
  ASSERT_TRUE(r->has_turn());
  EXPECT_EQ(r->state(), 0);
  Succeed(r, 7);
  r = Enter("a");
  EXPECT_EQ(r->state(), 7);
  Succeed(r, 8);
  r = Enter("a", false, true);
  EXPECT_EQ(r->state(), 8);
  Succeed(r, 9);
  EXPECT_EQ(store_->stats().sessions, 0u);
  EXPECT_EQ(store_->stats().bytes, 0u);
  EXPECT_NE(Enter("a")->error().find("sequence a is not there"), std::string::npos);
}

TEST_F(SessionStoreTest, RequestsOfOneSessionTakeTurnsInTheirOrder) {
  const RequestPtr first = Start("a"), second = Enter("a"), third = Enter("a"), other = Start("b");
  EXPECT_TRUE(first->has_turn());
  EXPECT_TRUE(other->has_turn()) << "another session runs beside it";
  EXPECT_EQ(second->error(), "waits");
  EXPECT_EQ(store_->stats().waiting, 2u);
  Succeed(first, 1);
  EXPECT_EQ(second->state(), 1);
  EXPECT_EQ(third->error(), "waits");
  Succeed(second, 2);
  EXPECT_EQ(third->state(), 2);
}

TEST_F(SessionStoreTest, ARequestThatFailsLeavesTheStateAsItWas) {
  Succeed(Start("a"), 5);
  Fail(Enter("a"));
  EXPECT_EQ(Enter("a")->state(), 5);
  Fail(Start("b"));
  EXPECT_NE(Enter("b")->error(), "waits") << "a start that fails starts nothing";
  EXPECT_EQ(store_->stats().sessions, 1u);
}

TEST_F(SessionStoreTest, WhoWaitsForAStartThatFailsIsTold) {
  const RequestPtr start = Start("a"), next = Enter("a"), again = Start("a");
  Fail(start);
  EXPECT_NE(next->error().find("is not there"), std::string::npos);
  EXPECT_EQ(again->state(), 0);
}

TEST_F(SessionStoreTest, AStartOfARunningSessionBeginsAnewOnceItSucceeds) {
  Succeed(Start("a"), 5);
  const RequestPtr again = Start("a");
  EXPECT_EQ(again->state(), 0);
  Fail(again);
  EXPECT_EQ(Enter("a")->state(), 5);
}

TEST_F(SessionStoreTest, AFailedEndEndsNothing) {
  Succeed(Start("a"), 5);
  Fail(Enter("a", false, true));
  EXPECT_EQ(Enter("a")->state(), 5);
}

TEST_F(SessionStoreTest, StartAndEndInOneRequestLeaveNothing) {
  const RequestPtr r = Enter("a", true, true);
  EXPECT_EQ(r->state(), 0);
  Succeed(r, 3);
  EXPECT_EQ(store_->stats().sessions, 0u);
}

TEST_F(SessionStoreTest, AnIdleSessionIsForgottenAndABusyOneIsNot) {
  Succeed(Start("idle"), 1);
  Succeed(Start("busy"), 2);
  clock_.Advance(seconds(59));
  const RequestPtr busy = Enter("busy");
  EXPECT_EQ(store_->Tick(), clock_.Now() + seconds(1));
  clock_.Advance(seconds(2));
  EXPECT_NE(Enter("idle")->error(), "waits") << "even before Tick";
  clock_.Advance(seconds(600));
  EXPECT_EQ(store_->Tick(), std::nullopt);
  Succeed(busy, 3);
  clock_.Advance(seconds(59));
  EXPECT_EQ(Enter("busy")->state(), 3) << "counted from the end of the last request";
  EXPECT_EQ(store_->stats().expired, 1u);
}

TEST_F(SessionStoreTest, WhoMayNotWaitLongerIsToldAndTheOthersGoOn) {
  const RequestPtr first = Start("a");
  const RequestPtr second = Enter("a", false, false, clock_.Now() + seconds(1));
  const RequestPtr third = Enter("a");
  EXPECT_EQ(store_->Tick(), clock_.Now() + seconds(1));
  clock_.Advance(seconds(1));
  EXPECT_EQ(store_->Tick(), std::nullopt);
  EXPECT_EQ(second->turn->status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(store_->Abandon(second->ticket));
  Succeed(first, 4);
  EXPECT_EQ(third->state(), 4);
}

TEST_F(SessionStoreTest, WhoLeavesWhileWaitingIsNeverCalled) {
  const RequestPtr first = Start("a"), second = Enter("a"), third = Enter("a");
  EXPECT_TRUE(store_->Abandon(second->ticket));
  EXPECT_FALSE(store_->Abandon(second->ticket));
  Succeed(first, 4);
  EXPECT_EQ(second->error(), "waits");
  EXPECT_EQ(third->state(), 4);
}

TEST_F(SessionStoreTest, ATurnIsNotAbandonedAndAWaitNotEnded) {
  const RequestPtr first = Start("a"), second = Enter("a");
  EXPECT_FALSE(store_->Abandon(first->ticket));
  EXPECT_EQ(store_->EndTurn(second->ticket), nullptr);
  Succeed(first, 4);
  EXPECT_EQ(second->state(), 4);
}

TEST_F(SessionStoreTest, SessionsWaitersAndBytesAreBounded) {
  SessionLimits limits;
  limits.max_sessions = 2;
  limits.max_waiting = 1;
  limits.max_bytes = 24;
  Limit(limits);
  const RequestPtr a = Start("a"), b = Start("b"), waits = Enter("a");
  EXPECT_EQ(Start("c")->turn->status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(Enter("a")->turn->status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(waits->error(), "waits");
  Succeed(a, 1);
  ASSERT_TRUE(store_->Commit(b->ticket, {Tensor::VectorInt64({1, 2})}).ok());
  EndTurn(b);
  const Status full = store_->Commit(waits->ticket, {Tensor::VectorInt64({1, 2})});
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(full.message(),
            "sequence a: its state takes 16 bytes, the server holds 16 of other sessions, its "
            "limit is 24");
  EndTurn(waits);
  EXPECT_EQ(Enter("a")->state(), 1) << "as it was";
  EXPECT_EQ(store_->stats().bytes, 24u);
  clock_.Advance(seconds(61));
  EXPECT_TRUE(Start("c")->has_turn()) << "what was idle makes room";
}

TEST_F(SessionStoreTest, AStateIsTheSessionsOwn) {
  const RequestPtr start = Start("a");
  Tensor shared = Tensor::ScalarInt64(5);
  ASSERT_TRUE(store_->Commit(start->ticket, {shared}).ok());
  shared.mutable_data<int64_t>()[0] = 6;
  EndTurn(start);
  EXPECT_EQ(Enter("a")->state(), 5);
}

TEST_F(SessionStoreTest, AnOwnersSessionsEndAtOnceAndTheOthersGoOn) {
  const Status why = CancelledError("removed");
  Succeed(Start("shop 1"), 1);
  Succeed(Start("other 1"), 7);
  const RequestPtr runs = Start("shop 2"), waits = Enter("shop 2");
  Succeed(Start("shop 3"), 3);
  const RequestPtr goes_on = Enter("shop 3");
  EXPECT_EQ(store_->EndAll("shop", why), 2u) << "the second one holds nothing yet";
  EXPECT_EQ(waits->error(), "removed");
  EXPECT_EQ(store_->EndAll("shop", why), 0u);
  EXPECT_EQ(store_->stats().ended, 2u);
  EXPECT_EQ(store_->stats().waiting, 0u);
  EXPECT_NE(Enter("shop 1")->error().find("is not there"), std::string::npos);
  // What runs keeps nothing, and nobody has to wait for it.
  const RequestPtr anew = Start("shop 3");
  ASSERT_TRUE(anew->has_turn());
  Succeed(anew, 30);
  for (const RequestPtr& late : {runs, goes_on}) {
    EXPECT_EQ(store_->Commit(late->ticket, Number(9)).code(), StatusCode::kCancelled);
    EndTurn(late);
  }
  EXPECT_EQ(store_->stats().sessions, 2u);
  EXPECT_EQ(store_->stats().bytes, 2 * sizeof(int64_t));
  EXPECT_EQ(Enter("shop 3")->state(), 30);
  EXPECT_EQ(Enter("other 1")->state(), 7);
}

TEST_F(SessionStoreTest, WakesItsKeeperOnlyWhenSomethingIsDueEarlier) {
  EXPECT_EQ(store_->Tick(), std::nullopt);
  Succeed(Start("a"), 1);
  EXPECT_EQ(wakes_, 1);
  clock_.Advance(seconds(1));
  Succeed(Start("b"), 1);
  EXPECT_EQ(wakes_, 1);
  const RequestPtr first = Enter("b");
  const RequestPtr second = Enter("b", false, false, clock_.Now() + seconds(2));
  EXPECT_EQ(wakes_, 2);
}

}  // namespace
}  // namespace plexus
