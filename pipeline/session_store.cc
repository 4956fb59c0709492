#include "pipeline/session_store.h"

#include <algorithm>
#include <memory>

namespace plexus {
namespace {

size_t BytesOf(const SessionStore::State& state) {
  size_t bytes = 0;
  for (const Tensor& t : state) {
    bytes += t.size_bytes();
    if (t.dtype() != DType::kString) continue;
    for (const std::string& text : t.strings()) bytes += sizeof(text) + text.size();
  }
  return bytes;
}

}  // namespace

SessionStore::SessionStore(const Clock& clock, SessionLimits limits, std::function<void()> wake)
    : clock_(clock), limits_(limits), wake_(std::move(wake)) {}

SessionStore::Ticket SessionStore::NewTicket() {
  std::lock_guard lock(mutex_);
  return next_ticket_++;
}

void SessionStore::Make(Calls calls) {
  for (auto& [turn, result] : calls) std::exchange(turn, nullptr)(std::move(result));
}

Status SessionStore::MayRunLocked(const Session& session, const Entrant& entrant) const {
  if (entrant.start || session.state) return OkStatus();
  return InvalidArgumentError(
      entrant.name +
      " is not there: it was never started, has ended, or was idle for too long; its first request "
      "must set sequence_start");
}

void SessionStore::Enter(Ticket ticket, Entrant entrant, Turn turn) {
  Calls calls;
  bool wake = false;
  {
    std::lock_guard lock(mutex_);
    TickLocked(&calls);
    const auto [it, is_new] = sessions_.try_emplace(entrant.session);
    Session& session = it->second;
    const bool occupied = session.running || !session.waiting.empty();
    Status status = occupied ? OkStatus() : MayRunLocked(session, entrant);
    if (status.ok() && !session.counted && counted_ >= limits_.max_sessions) {
      status = ResourceExhaustedError(entrant.name + ": the server holds " +
                                      std::to_string(counted_) + " sessions, its limit");
    }
    if (status.ok() && session.waiting.size() >= limits_.max_waiting) {
      status = UnavailableError(entrant.name + ": " + std::to_string(session.waiting.size()) +
                                " of its requests wait for their turn already");
    }
    if (!status.ok()) {
      if (status.code() != StatusCode::kInvalidArgument) ++refused_;
      if (is_new) sessions_.erase(it);
      calls.emplace_back(std::move(turn), std::move(status));
    } else {
      if (!session.counted) {
        session.counted = true;
        session.owner = entrant.owner;
        ++counted_;
      }
      where_[ticket] = entrant.session;
      if (entrant.give_up_at) due_.insert({{*entrant.give_up_at, ticket}, entrant.session});
      session.waiting.push_back({ticket, std::move(entrant), std::move(turn)});
      ++waiting_;
      if (!session.running) BeginNextLocked(it, &calls);
    }
    wake = DueEarlierLocked();
  }
  if (wake && wake_) wake_();
  Make(std::move(calls));
}

bool SessionStore::DueEarlierLocked() {
  if (due_.empty() || (told_ && *told_ <= due_.begin()->first.first)) return false;
  told_ = due_.begin()->first.first;
  return true;
}

// Takes the request out of the queue; the session is left as it is.
void SessionStore::DropWaiterLocked(Session& session, std::deque<Waiter>::iterator at) {
  const Entrant& entrant = at->entrant;
  if (entrant.give_up_at) due_.erase({{*entrant.give_up_at, at->ticket}, entrant.session});
  session.waiting.erase(at);
  --waiting_;
}

// Nobody has the turn. The first that may run gets it; a session that nobody uses goes idle, or
// away when it holds nothing.
void SessionStore::BeginNextLocked(Sessions::iterator it, Calls* calls) {
  Session& session = it->second;
  due_.erase({{session.idle_until, 0}, it->first});
  while (!session.waiting.empty()) {
    Waiter next = std::move(session.waiting.front());
    const Entrant& entrant = next.entrant;
    if (entrant.give_up_at) due_.erase({{*entrant.give_up_at, next.ticket}, entrant.session});
    session.waiting.pop_front();
    --waiting_;
    const Status status = MayRunLocked(session, entrant);
    if (!status.ok()) {
      where_.erase(next.ticket);
      calls->emplace_back(std::move(next.turn), status);
      continue;
    }
    calls->emplace_back(std::move(next.turn), entrant.start ? entrant.initial : *session.state);
    session.running = std::move(next);
    return;
  }
  if (session.state) {
    due_.insert({{session.idle_until, 0}, it->first});
    return;
  }
  if (session.counted) --counted_;
  sessions_.erase(it);
}

void SessionStore::ForgetLocked(Session& session) {
  bytes_ -= session.bytes;
  session.bytes = 0;
  session.state.reset();
}

Status SessionStore::Commit(Ticket ticket, const State& next) {
  // Copies, so that a session holds no more than its own state: `next` may be a view of something
  // larger, and is charged to a request that ends.
  State copies;
  for (const Tensor& t : next) {
    PLEXUS_ASSIGN_OR_RETURN(Tensor copy, t.Clone());
    copies.push_back(std::move(copy));
  }
  const size_t bytes = BytesOf(copies);
  State old;  // destroyed outside the lock
  std::lock_guard lock(mutex_);
  const auto where = where_.find(ticket);
  if (where == where_.end()) return InternalError("a commit without a turn");
  Session& session = sessions_.at(where->second);
  if (!session.running || session.running->ticket != ticket) {
    return InternalError("a commit before its turn");
  }
  if (!session.ended.ok()) return session.ended;
  const bool begins = !session.state;
  if (session.state) old = std::move(*session.state);
  if (session.running->entrant.end) {
    begun_ += begins ? 1 : 0;
    ++ended_;
    ForgetLocked(session);
    return OkStatus();
  }
  const size_t others = bytes_ - session.bytes;
  if (bytes > limits_.max_bytes || others > limits_.max_bytes - bytes) {
    if (session.state) session.state = std::move(old);
    ++refused_;
    return ResourceExhaustedError(session.running->entrant.name + ": its state takes " +
                                  std::to_string(bytes) + " bytes, the server holds " +
                                  std::to_string(others) + " of other sessions, its limit is " +
                                  std::to_string(limits_.max_bytes));
  }
  begun_ += begins ? 1 : 0;
  bytes_ = others + bytes;
  session.bytes = bytes;
  session.state = std::move(copies);
  return OkStatus();
}

std::function<void()> SessionStore::EndTurn(Ticket ticket) {
  auto calls = std::make_shared<Calls>();
  bool wake = false;
  {
    std::lock_guard lock(mutex_);
    const auto where = where_.find(ticket);
    if (where == where_.end()) return nullptr;
    const auto it = sessions_.find(where->second);
    Session& session = it->second;
    if (!session.running || session.running->ticket != ticket) return nullptr;
    where_.erase(where);
    session.idle_until = clock_.Now() + session.running->entrant.idle;
    session.running.reset();
    BeginNextLocked(it, calls.get());
    wake = DueEarlierLocked();
  }
  if (wake && wake_) wake_();
  if (calls->empty()) return nullptr;
  return [calls] { Make(std::move(*calls)); };
}

bool SessionStore::Abandon(Ticket ticket) {
  std::lock_guard lock(mutex_);
  const auto where = where_.find(ticket);
  if (where == where_.end()) return false;
  Session& session = sessions_.at(where->second);
  const auto at = std::find_if(session.waiting.begin(), session.waiting.end(),
                               [&](const Waiter& w) { return w.ticket == ticket; });
  if (at == session.waiting.end()) return false;
  where_.erase(where);
  DropWaiterLocked(session, at);
  return true;
}

size_t SessionStore::EndAll(std::string_view owner, const Status& why) {
  Calls calls;
  size_t ended = 0;
  {
    std::lock_guard lock(mutex_);
    std::vector<Sessions::node_type> running;
    for (auto it = sessions_.begin(); it != sessions_.end();) {
      const auto at = it++;
      Session& session = at->second;
      if (session.owner != owner || !session.ended.ok()) continue;
      ended += session.state ? 1 : 0;
      ForgetLocked(session);
      while (!session.waiting.empty()) {
        Waiter& first = session.waiting.front();
        where_.erase(first.ticket);
        calls.emplace_back(std::move(first.turn), why);
        DropWaiterLocked(session, session.waiting.begin());
      }
      due_.erase({{session.idle_until, 0}, at->first});
      if (session.running) {
        running.push_back(sessions_.extract(at));
        continue;
      }
      if (session.counted) --counted_;
      sessions_.erase(at);
    }
    // Until their turn has ended, under a name that no session begins with.
    for (Sessions::node_type& node : running) {
      Session& session = node.mapped();
      const Ticket ticket = session.running->ticket;
      session.ended = why;
      node.key() = std::string(1, '\0') + std::to_string(ticket);
      where_[ticket] = node.key();
      sessions_.insert(std::move(node));
    }
    ended_ += ended;
  }
  Make(std::move(calls));
  return ended;
}

void SessionStore::TickLocked(Calls* calls) {
  const TimePoint now = clock_.Now();
  while (!due_.empty() && due_.begin()->first.first <= now) {
    const Ticket ticket = due_.begin()->first.second;
    const auto it = sessions_.find(due_.begin()->second);
    Session& session = it->second;
    if (ticket == 0) {
      due_.erase(due_.begin());
      ForgetLocked(session);
      if (session.counted) --counted_;
      sessions_.erase(it);
      ++expired_;
      continue;
    }
    const auto at = std::find_if(session.waiting.begin(), session.waiting.end(),
                                 [&](const Waiter& w) { return w.ticket == ticket; });
    calls->emplace_back(std::move(at->turn),
                        DeadlineExceededError(at->entrant.name +
                                              ": the request's timeout has passed while it waited "
                                              "for its turn"));
    where_.erase(ticket);
    DropWaiterLocked(session, at);
  }
}

std::optional<TimePoint> SessionStore::Tick() {
  Calls calls;
  std::optional<TimePoint> next;
  {
    std::lock_guard lock(mutex_);
    TickLocked(&calls);
    if (!due_.empty()) next = due_.begin()->first.first;
    told_ = next;
  }
  Make(std::move(calls));
  return next;
}

SessionStore::Stats SessionStore::stats() const {
  std::lock_guard lock(mutex_);
  return {counted_, bytes_, waiting_, begun_, ended_, expired_, refused_};
}

}  // namespace plexus
