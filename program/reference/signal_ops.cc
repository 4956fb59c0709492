// DFT, STFT, MelWeightMatrix and the window functions.
#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>

#include "program/reference/element_io.h"

namespace plexus::reference {
namespace {

using Complex = std::complex<double>;

constexpr int64_t kLongestTransform = int64_t{1} << 26;

// Plain products: std::complex's operator* also repairs NaNs, which costs a call.
Complex Times(Complex a, Complex b) {
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

// Unscaled transforms of one length: radix 2 for powers of two, Bluestein's chirp for the rest.
class Fourier {
 public:
  Fourier(int64_t n, bool inverse) : n_(n), sign_(inverse ? 1 : -1) {
    if ((n & (n - 1)) == 0) {
      MakeRoots(n, sign_, &roots_);
      return;
    }
    size_ = 1;
    while (size_ < 2 * n - 1) size_ *= 2;
    MakeRoots(size_, -1, &roots_);
    MakeRoots(size_, 1, &back_roots_);
    chirp_.resize(n);
    for (int64_t i = 0; i < n; ++i) {
      // i² mod 2n keeps the angle small.
      const int64_t square = static_cast<int64_t>(static_cast<unsigned __int128>(i) * i % (2 * n));
      chirp_[i] = std::polar(
          1.0, sign_ * std::numbers::pi * static_cast<double>(square) / static_cast<double>(n));
    }
    filter_.assign(size_, Complex());
    for (int64_t i = 0; i < n; ++i) {
      filter_[i] = std::conj(chirp_[i]);
      if (i > 0) filter_[size_ - i] = filter_[i];
    }
    Radix2(filter_.data(), size_, roots_);
  }

  // In place, x: n values.
  void Run(Complex* x) const {
    if (size_ == 0) return Radix2(x, n_, roots_);
    std::vector<Complex> work(size_);
    for (int64_t i = 0; i < n_; ++i) work[i] = Times(x[i], chirp_[i]);
    Radix2(work.data(), size_, roots_);
    for (int64_t i = 0; i < size_; ++i) work[i] = Times(work[i], filter_[i]);
    Radix2(work.data(), size_, back_roots_);
    for (int64_t i = 0; i < n_; ++i) {
      x[i] = Times(work[i], chirp_[i]) / static_cast<double>(size_);
    }
  }

 private:
  static void MakeRoots(int64_t n, double sign, std::vector<Complex>* roots) {
    roots->resize(n / 2);
    for (int64_t i = 0; i < n / 2; ++i) {
      (*roots)[i] = std::polar(
          1.0, sign * 2 * std::numbers::pi * static_cast<double>(i) / static_cast<double>(n));
    }
  }

  static void Radix2(Complex* x, int64_t n, const std::vector<Complex>& roots) {
    for (int64_t i = 1, j = 0; i < n; ++i) {
      int64_t bit = n >> 1;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) std::swap(x[i], x[j]);
    }
    for (int64_t length = 2; length <= n; length *= 2) {
      const int64_t half = length / 2, step = n / length;
      for (int64_t base = 0; base < n; base += length) {
        for (int64_t k = 0; k < half; ++k) {
          const Complex odd = Times(x[base + half + k], roots[k * step]);
          x[base + half + k] = x[base + k] - odd;
          x[base + k] += odd;
        }
      }
    }
  }

  int64_t n_, size_ = 0;
  double sign_;
  std::vector<Complex> roots_, back_roots_, chirp_, filter_;
};

// The length asked for by input `i`, or `fallback`.
Result<int64_t> ReadLength(const OpContext& ctx, size_t i, std::string_view what,
                           int64_t fallback) {
  int64_t length = fallback;
  if (ctx.HasInput(i)) {
    PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> values, IntsInput(ctx, i));
    if (values.size() != 1) return InvalidArgumentError(std::string(what) + " must be one number");
    length = values[0];
  }
  PLEXUS_RETURN_IF_ERROR(CheckRange(what, length, 1, kLongestTransform));
  return length;
}

// x: [..., d, ..., 1 or 2] (real or complex pairs) along one axis.
Status Dft(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  const int64_t rank = x.rank();
  if (rank < 2 || x.shape().back() < 1 || x.shape().back() > 2) {
    return InvalidArgumentError("input " + ShapeToString(x.shape()) +
                                " must end in a dimension of 1 (real) or 2 (complex)");
  }
  int64_t axis = ctx.node.IntAttr("axis", 1);
  if (ctx.node.version >= 20) {
    PLEXUS_ASSIGN_OR_RETURN(const double value, ScalarInput(ctx, 2, -2));
    axis = static_cast<int64_t>(std::clamp(value, -1e9, 1e9));
  }
  PLEXUS_ASSIGN_OR_RETURN(axis, NormalizeAxis(axis, rank));
  if (axis == rank - 1) return InvalidArgumentError("axis must not be the last dimension");
  const bool inverse = ctx.node.IntAttr("inverse", 0) != 0;
  const bool onesided = ctx.node.IntAttr("onesided", 0) != 0;
  const int64_t in = x.shape()[axis], parts = x.shape().back();
  const bool real_output = inverse && onesided;
  PLEXUS_ASSIGN_OR_RETURN(const int64_t n,
                          ReadLength(ctx, 1, "dft_length", real_output ? 2 * (in - 1) : in));
  const int64_t out = onesided && !inverse ? n / 2 + 1 : n;
  Shape shape = x.shape();
  shape[axis] = out;
  shape[rank - 1] = real_output ? 1 : 2;
  const int64_t inner = DimsProduct(shape, axis + 1, rank - 1);
  PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<double>::Load(x));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<double>::Make(x.dtype(), shape));
  if (y.size() == 0) return std::move(y).FinishInto(&ctx.outputs[0]);
  const int64_t outer = DimsProduct(shape, 0, axis);
  const Fourier fourier(n, inverse);
  const double factor = inverse ? 1 / static_cast<double>(n) : 1;
  std::vector<Complex> line(n);
  for (int64_t i = 0; i < outer * inner; ++i) {
    const int64_t o = i / inner, j = i % inner;
    std::fill(line.begin(), line.end(), Complex());
    const int64_t used = std::min(real_output ? n / 2 + 1 : n, in);
    for (int64_t k = 0; k < used; ++k) {
      const double* at = xs.data() + ((o * in + k) * inner + j) * parts;
      line[k] = Complex(at[0], parts == 2 ? at[1] : 0);
      // A one-sided spectrum is the half of a Hermitian one.
      if (real_output && k > 0 && k < n - k) line[n - k] = std::conj(line[k]);
    }
    fourier.Run(line.data());
    for (int64_t k = 0; k < out; ++k) {
      double* at = y.data() + ((o * out + k) * inner + j) * shape[rank - 1];
      at[0] = line[k].real() * factor;
      if (!real_output) at[1] = line[k].imag() * factor;
    }
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

// signal: [N, length, 1 or 2] → [N, frames, bins, 2].
Status Stft(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  PLEXUS_RETURN_IF_ERROR(CheckRank("signal", x, 3));
  const int64_t batch = x.shape()[0], length = x.shape()[1], parts = x.shape()[2];
  PLEXUS_RETURN_IF_ERROR(CheckRange("the signal's last dimension", parts, 1, 2));
  const Tensor& window = ctx.Input(2);
  if (window.defined()) PLEXUS_RETURN_IF_ERROR(CheckRank("window", window, 1));
  PLEXUS_ASSIGN_OR_RETURN(const int64_t step, ReadLength(ctx, 1, "frame_step", 0));
  PLEXUS_ASSIGN_OR_RETURN(
      const int64_t n,
      ReadLength(ctx, 3, "frame_length", window.defined() ? window.num_elements() : length));
  PLEXUS_RETURN_IF_ERROR(CheckShapeIfAny("window", window, {n}));
  if (n > length) {
    return InvalidArgumentError("frame_length " + std::to_string(n) +
                                " exceeds the signal's length " + std::to_string(length));
  }
  const int64_t frames = 1 + (length - n) / step;
  const int64_t bins = ctx.node.IntAttr("onesided", 1) != 0 ? n / 2 + 1 : n;
  PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<double>::Load(x));
  PLEXUS_ASSIGN_OR_RETURN(auto weights, Elements<double>::Load(window));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<double>::Make(x.dtype(), {batch, frames, bins, 2}));
  const Fourier fourier(n, false);
  std::vector<Complex> line(n);
  for (int64_t i = 0; i < batch * frames; ++i) {
    const double* frame = xs.data() + (i / frames * length + i % frames * step) * parts;
    for (int64_t k = 0; k < n; ++k) {
      const double w = weights.empty() ? 1 : weights[k];
      line[k] = Complex(frame[k * parts] * w, parts == 2 ? frame[k * parts + 1] * w : 0);
    }
    fourier.Run(line.data());
    for (int64_t k = 0; k < bins; ++k) {
      y[(i * bins + k) * 2] = line[k].real();
      y[(i * bins + k) * 2 + 1] = line[k].imag();
    }
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

Result<DType> OutputType(const Node& node) {
  const int64_t type = node.IntAttr("output_datatype", 1);
  const DType dtype = type > 0 && type < 256 ? static_cast<DType>(type) : DType::kUndefined;
  if (ComputeType(dtype) == DType::kUndefined) {
    return InvalidArgumentError("output_datatype " + std::to_string(type) +
                                " is not a number type");
  }
  return dtype;
}

// a0 - a1 cos(2πn/N) + a2 cos(4πn/N).
Status CosineWindow(OpContext& ctx, double a0, double a1, double a2) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  PLEXUS_ASSIGN_OR_RETURN(const int64_t size, ReadLength(ctx, 0, "size", 0));
  PLEXUS_ASSIGN_OR_RETURN(const DType dtype, OutputType(ctx.node));
  const bool periodic = ctx.node.IntAttr("periodic", 1) != 0;
  const double period = static_cast<double>(periodic ? size : std::max<int64_t>(size - 1, 1));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<double>::Make(dtype, {size}));
  for (int64_t i = 0; i < size; ++i) {
    const double angle = 2 * std::numbers::pi * static_cast<double>(i) / period;
    y[i] = a0 - a1 * std::cos(angle) + a2 * std::cos(2 * angle);
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

Status HannWindow(OpContext& ctx) { return CosineWindow(ctx, 0.5, 0.5, 0); }
Status HammingWindow(OpContext& ctx) { return CosineWindow(ctx, 25.0 / 46, 21.0 / 46, 0); }
Status BlackmanWindow(OpContext& ctx) { return CosineWindow(ctx, 0.42, 0.5, 0.08); }

// Inputs: num_mel_bins, dft_length, sample_rate, lower and upper edge in hertz, all scalars;
// output [dft_length / 2 + 1, num_mel_bins]: triangular filters at mel-spaced frequencies.
Status MelWeightMatrix(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 5));
  PLEXUS_ASSIGN_OR_RETURN(const int64_t mel_bins, ReadLength(ctx, 0, "num_mel_bins", 0));
  PLEXUS_ASSIGN_OR_RETURN(const int64_t dft_length, ReadLength(ctx, 1, "dft_length", 0));
  PLEXUS_ASSIGN_OR_RETURN(const double sample_rate, ScalarInput(ctx, 2, 0));
  PLEXUS_ASSIGN_OR_RETURN(const double lower, ScalarInput(ctx, 3, 0));
  PLEXUS_ASSIGN_OR_RETURN(const double upper, ScalarInput(ctx, 4, 0));
  PLEXUS_ASSIGN_OR_RETURN(const DType dtype, OutputType(ctx.node));
  const int64_t bins = dft_length / 2 + 1;
  if (!(sample_rate > 0 && lower >= 0 && upper >= lower && upper < 1e9)) {
    return InvalidArgumentError(
        "sample rate and edge frequencies must satisfy 0 <= lower <= upper");
  }
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<double>::Make(dtype, {bins, mel_bins}, true));
  const double low = 2595 * std::log10(1 + lower / 700);
  const double high = 2595 * std::log10(1 + upper / 700);
  std::vector<int64_t> edges(mel_bins + 2);
  for (size_t i = 0; i < edges.size(); ++i) {
    const double mel =
        low + static_cast<double>(i) * (high - low) / static_cast<double>(edges.size());
    const double hertz = 700 * (std::pow(10, mel / 2595) - 1);
    const double bin = std::floor(static_cast<double>(dft_length + 1) * hertz / sample_rate);
    if (!(bin < static_cast<double>(bins))) {
      return InvalidArgumentError("the upper edge exceeds half the sample rate");
    }
    edges[i] = static_cast<int64_t>(bin);
  }
  for (int64_t i = 0; i < mel_bins; ++i) {
    const int64_t left = edges[i], centre = edges[i + 1], right = edges[i + 2];
    if (left == centre) y[centre * mel_bins + i] = 1;
    for (int64_t j = left; j <= centre && left < centre; ++j) {
      y[j * mel_bins + i] = static_cast<double>(j - left) / static_cast<double>(centre - left);
    }
    for (int64_t j = centre; j < right; ++j) {
      y[j * mel_bins + i] = static_cast<double>(right - j) / static_cast<double>(right - centre);
    }
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

constexpr OpEntry kOps[] = {
    {"", "BlackmanWindow", 17, kLatest, BlackmanWindow},
    {"", "DFT", 17, kLatest, Dft},
    {"", "HammingWindow", 17, kLatest, HammingWindow},
    {"", "HannWindow", 17, kLatest, HannWindow},
    {"", "MelWeightMatrix", 17, kLatest, MelWeightMatrix},
    {"", "STFT", 17, kLatest, Stft},
};

}  // namespace

std::span<const OpEntry> SignalOps() { return kOps; }

}  // namespace plexus::reference
