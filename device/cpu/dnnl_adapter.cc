#include "device/cpu/dnnl_adapter.h"

#include <omp.h>

#include <cstring>
#include <functional>
#include <mutex>
#include <unordered_map>

#include "device/cpu/packed_memory.h"

namespace plexus::cpu {

namespace {

Status FromDnnl(const dnnl::error& e) {
  return InternalError(std::string("oneDNN: ") + (e.message ? e.message : "error") + " (status " +
                       std::to_string(static_cast<int>(e.status)) + ")");
}

// Per thread: a stream, and OpenMP width one for everything this thread runs.
struct ThreadState {
  ThreadState() : stream(DnnlEngine()) { omp_set_num_threads(1); }
  dnnl::stream stream;
};

dnnl_stream_t ThreadStream() {
  thread_local ThreadState state;
  return state.stream.get();
}

constexpr size_t kMaxArguments = 16;

}  // namespace

const dnnl::engine& DnnlEngine() {
  static const dnnl::engine& engine = *new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

OneThreadScope::OneThreadScope() : previous_(omp_get_max_threads()) { omp_set_num_threads(1); }
OneThreadScope::~OneThreadScope() { omp_set_num_threads(previous_); }

struct DnnlPrimitive::State {
  std::vector<dnnl::memory> memories;  // slots, then the scratchpad if there is one
};

DnnlPrimitive::DnnlPrimitive(dnnl::primitive primitive, std::vector<Slot> slots,
                             dnnl::memory::desc scratchpad, std::string implementation)
    : primitive_(std::move(primitive)),
      slots_(std::move(slots)),
      scratchpad_(scratchpad),
      scratch_bytes_(scratchpad.get_size()),
      implementation_(std::move(implementation)) {
  Release(Acquire());  // the first run allocates nothing
}

DnnlPrimitive::~DnnlPrimitive() {
  for (State* state : free_) delete state;
}

DnnlPrimitive::State* DnnlPrimitive::Acquire() const {
  // acquire/release: whoever takes the lock sees the list as the last holder left it.
  while (lock_.test_and_set(std::memory_order_acquire)) {
  }
  State* state = nullptr;
  if (!free_.empty()) {
    state = free_.back();
    free_.pop_back();
  }
  lock_.clear(std::memory_order_release);
  if (state) return state;
  state = new State;
  for (const Slot& slot : slots_) {
    state->memories.emplace_back(slot.desc, DnnlEngine(), nullptr);
  }
  if (scratch_bytes_ > 0) state->memories.emplace_back(scratchpad_, DnnlEngine(), nullptr);
  return state;
}

void DnnlPrimitive::Release(State* state) const {
  while (lock_.test_and_set(std::memory_order_acquire)) {
  }
  free_.push_back(state);
  lock_.clear(std::memory_order_release);
}

Status DnnlPrimitive::Run(std::span<void* const> addresses, std::span<const FixedArgument> fixed,
                          void* scratch) const {
  const dnnl_stream_t stream = ThreadStream();
  State* state = Acquire();
  std::array<dnnl_exec_arg_t, kMaxArguments> arguments;
  int count = 0;
  dnnl_status_t status = dnnl_success;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const dnnl_memory_t memory = state->memories[i].get();
    if (status == dnnl_success) status = dnnl_memory_set_data_handle(memory, addresses[i]);
    arguments[count++] = {slots_[i].index, memory};
  }
  if (scratch_bytes_ > 0) {
    const dnnl_memory_t memory = state->memories.back().get();
    if (status == dnnl_success) status = dnnl_memory_set_data_handle(memory, scratch);
    arguments[count++] = {DNNL_ARG_SCRATCHPAD, memory};
  }
  for (const FixedArgument& argument : fixed) {
    arguments[count++] = {argument.index, argument.memory.get()};
  }
  if (status == dnnl_success) {
    status = dnnl_primitive_execute(primitive_.get(), stream, count, arguments.data());
  }
  Release(state);
  if (status == dnnl_success) return OkStatus();
  return InternalError("oneDNN could not run " + implementation_ + " (status " +
                       std::to_string(static_cast<int>(status)) + ")");
}

Result<DnnlPrimitivePtr> CachedPrimitive(
    const std::string& key, const std::function<std::shared_ptr<DnnlPrimitive>()>& make) {
  static std::mutex& mutex = *new std::mutex;  // guards cache
  static auto& cache = *new std::unordered_map<std::string, std::weak_ptr<const DnnlPrimitive>>;
  {
    std::lock_guard<std::mutex> lock(mutex);
    auto it = cache.find(key);
    if (it != cache.end()) {
      if (DnnlPrimitivePtr found = it->second.lock()) return found;
    }
  }
  DnnlPrimitivePtr made;
  try {
    OneThreadScope one_thread;
    made = make();
  } catch (const dnnl::error& e) {
    if (e.status == dnnl_unimplemented) {
      return UnimplementedError("oneDNN has no implementation for " + key);
    }
    return FromDnnl(e);
  }
  std::lock_guard<std::mutex> lock(mutex);
  if (cache.size() > 4096) {
    std::erase_if(cache, [](const auto& entry) { return entry.second.expired(); });
  }
  auto& slot = cache[key];
  if (DnnlPrimitivePtr found = slot.lock()) return found;
  slot = made;
  return made;
}

std::string DescKey(const dnnl::memory::desc& desc) {
  const dnnl_memory_desc_t& d = desc.data;
  std::string key = "t" + std::to_string(static_cast<int>(d.data_type));
  auto add = [&](char tag, const dnnl_dim_t* values, int count) {
    key += tag;
    for (int i = 0; i < count; ++i) key += std::to_string(values[i]) + ",";
  };
  add('d', d.dims, d.ndims);
  add('p', d.padded_dims, d.ndims);
  const dnnl_blocking_desc_t& b = d.format_desc.blocking;
  add('s', b.strides, d.ndims);
  add('b', b.inner_blks, b.inner_nblks);
  add('i', b.inner_idxs, b.inner_nblks);
  if (d.extra.flags) {
    key += "x" + std::to_string(d.extra.flags) + ":" + std::to_string(d.extra.compensation_mask) +
           ":" + std::to_string(d.extra.scale_adjust) + ":" +
           std::to_string(d.extra.asymm_compensation_mask);
  }
  return key;
}

namespace {

Status Reorder(const dnnl::memory::desc& from, const void* source, const dnnl::memory::desc& to,
               void* target) {
  try {
    OneThreadScope one_thread;
    dnnl::memory in(from, DnnlEngine(), const_cast<void*>(source));  // only read
    dnnl::memory out(to, DnnlEngine(), target);
    dnnl::stream stream(DnnlEngine());
    dnnl::reorder(in, out).execute(stream, in, out);
    stream.wait();
  } catch (const dnnl::error& e) {
    return FromDnnl(e);
  }
  return OkStatus();
}

}  // namespace

namespace {

Result<Tensor> Unpack(const dnnl::memory::desc& packed, const dnnl::memory::desc& plain,
                      const DerivedConstant& derived, DType dtype, const Shape& shape) {
  PLEXUS_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(dtype, shape));
  PLEXUS_RETURN_IF_ERROR(Reorder(packed, derived.buffer->data(), plain, tensor.raw_mutable()));
  return tensor;
}

}  // namespace

Result<DerivedPtr> PackConstant(const Constant& constant, const dnnl::memory::desc& from,
                                const dnnl::memory::desc& to) {
  auto make = [&](const Tensor& plain) -> Result<DerivedConstant> {
    DerivedConstant derived;
    PLEXUS_ASSIGN_OR_RETURN(derived.buffer, Buffer::Allocate(to.get_size()));
    PLEXUS_RETURN_IF_ERROR(Reorder(from, plain.raw(), to, derived.buffer->data()));
    NotePacked(plain.size_bytes());
    return derived;
  };
  PLEXUS_ASSIGN_OR_RETURN(DerivedPtr packed,
                          constant.Derived("dnnl:" + DescKey(from) + ">" + DescKey(to), make));
  const Tensor plain = constant.PlainIfResident();
  if (!plain.defined() || from.data.data_type != to.data.data_type) return packed;
  // Int8 weights carry sums for compensation behind them, which the way back does not need.
  dnnl::memory::desc bare = to;
  bare.data.extra = {};
  const DType dtype = constant.dtype();
  const Shape shape = constant.shape();
  auto back = Unpack(bare, from, *packed, dtype, shape);
  if (back.ok() && std::memcmp(back->raw(), plain.raw(), plain.size_bytes()) == 0) {
    constant.EvictPlain(packed, [=](const DerivedConstant& derived) {
      return Unpack(bare, from, derived, dtype, shape);
    });
  }
  return packed;
}

}  // namespace plexus::cpu
