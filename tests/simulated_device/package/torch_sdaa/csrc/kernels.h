// Operators that torch asks of a device itself: memory, copies, convolutions, synchronised batch normalisation.
#pragma once
#include "fallback.h"

#include <ATen/native/Resize.h>
#include <ATen/ops/set_cpu_dispatch.h>

namespace simulated {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                            std::optional<at::Layout> layout, std::optional<c10::Device> device, std::optional<bool>) {
  TORCH_CHECK(!layout || *layout == c10::kStrided, "sdaa: the simulated device has strided tensors only");
  OnDevice here(index_or_current(device));
  return at::detail::empty_strided_generic(size, stride, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}

inline Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout> layout,
                    std::optional<c10::Device> device, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  TORCH_CHECK(!layout || *layout == c10::kStrided, "sdaa: the simulated device has strided tensors only");
  OnDevice here(index_or_current(device));
  return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype),
                                   format);
}

inline Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  // The only operator whose tensors may be on two devices, so the target is viewed outside of the call.
  Call call("aten::_copy_from");
  auto view = call.host(from);
  if (to.device().type() != kDevice) {
    to.copy_(view);
    return to;
  }
  auto target = view_as(to, on_host(to.storage()), c10::DispatchKey::CPU);
  target.copy_(view);
  call.wrote(Tensor(), target);
  return to;
}

inline Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}

inline const Tensor& resize_(const Tensor& self, c10::SymIntArrayRef symbolic, std::optional<c10::MemoryFormat> format) {
  const auto size = C10_AS_INTARRAYREF_SLOW(symbolic);
  auto* impl = self.unsafeGetTensorImpl();
  if (self.sizes() == size && !format) return self;
  const auto bytes = at::detail::computeStorageNbytesContiguous(size, self.dtype().itemsize(), self.storage_offset());
  if (bytes > self.storage().nbytes()) Hooks().resizePrivateUse1Bytes(self.storage(), bytes);
  impl->set_sizes_contiguous(size);
  if (format && *format != c10::MemoryFormat::Preserve) impl->empty_tensor_restride(*format);
  return self;
}

inline Tensor& set_part(Tensor& self, c10::Storage storage, int64_t offset, c10::IntArrayRef size, c10::IntArrayRef stride) {
  return at::cpu::set_(self, storage, offset, size, stride);
}
inline Tensor& set_storage(Tensor& self, c10::Storage storage) {
  return at::cpu::set_(self, storage, 0, {static_cast<int64_t>(storage.nbytes() / self.dtype().itemsize())}, {1});
}
inline Tensor& set_tensor(Tensor& self, const Tensor& other) {
  return at::cpu::set_(self, other.storage(), other.storage_offset(), other.sizes(), other.strides());
}
inline Tensor& set_nothing(Tensor& self) {
  return at::cpu::set_(self, c10::Storage(c10::Storage::use_byte_size_t(), 0, &allocator, true), 0, {0}, {1});
}

inline Tensor convolution(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, c10::SymIntArrayRef stride,
                          c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
                          c10::SymInt groups) {
  Call call("aten::convolution_overrideable");
  return call.result(at::convolution_symint(call.host(input), call.host(weight), call.host(bias), stride, padding, dilation, transposed,
                                            output_padding, groups));
}

inline std::tuple<Tensor, Tensor, Tensor> convolution_backward(const Tensor& gradient, const Tensor& input, const Tensor& weight,
                                                               c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                                                               c10::SymIntArrayRef dilation, bool transposed,
                                                               c10::SymIntArrayRef output_padding, c10::SymInt groups,
                                                               std::array<bool, 3> mask) {
  Call call("aten::convolution_backward_overrideable");
  std::vector<c10::SymInt> bias_size{weight.sym_size(transposed ? 1 : 0) * (transposed ? groups : c10::SymInt(1))};
  auto [to_input, to_weight, to_bias] = at::convolution_backward_symint(
      call.host(gradient), call.host(input), call.host(weight),
      mask[2] ? at::OptionalSymIntArrayRef(bias_size) : at::OptionalSymIntArrayRef(std::nullopt), stride, padding, dilation, transposed,
      output_padding, groups, mask);
  return {call.result(to_input), call.result(to_weight), call.result(to_bias)};
}

// Synchronised batch normalisation: torch has these five for CUDA only. Statistics are in float32, per channel.
inline std::vector<int64_t> all_but_channels(const Tensor& tensor) {
  std::vector<int64_t> dims;
  for (int64_t dim = 0; dim < tensor.dim(); dim++)
    if (dim != 1) dims.push_back(dim);
  return dims;
}
inline Tensor per_channel(const Tensor& vector, const Tensor& like) {
  std::vector<int64_t> shape(like.dim(), 1);
  shape[1] = -1;
  return vector.view(shape);
}

inline std::tuple<Tensor, Tensor> batch_norm_stats(const Tensor& input, double eps) {
  Call call("aten::batch_norm_stats");
  const auto x = call.host(input).to(at::kFloat);
  auto [variance, mean] = at::var_mean(x, all_but_channels(x), /*unbiased=*/false);
  return {call.result(mean), call.result((variance + eps).rsqrt())};
}

inline std::tuple<Tensor, Tensor> batch_norm_gather_stats_with_counts(const Tensor&, const Tensor& means, const Tensor& invstds,
                                                                      const OptionalTensor& running_mean, const OptionalTensor& running_var,
                                                                      double momentum, double eps, const Tensor& counts) {
  Call call("aten::batch_norm_gather_stats_with_counts");
  const auto m = call.host(means);
  const auto n = call.host(counts).to(at::kFloat).view({-1, 1});
  const auto total = n.sum();
  const auto mean = (m * n).sum(0) / total;
  const auto variances = call.host(invstds).pow(-2) - eps;
  const auto variance = ((variances + (m - mean).square()) * n).sum(0) / total;
  if (auto running = call.host(running_mean)) running->mul_(1 - momentum).add_(mean, momentum);
  if (auto running = call.host(running_var)) running->mul_(1 - momentum).add_(variance * total / (total - 1), momentum);
  return {call.result(mean), call.result((variance + eps).rsqrt())};
}

inline Tensor batch_norm_elemt(const Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& mean,
                               const Tensor& invstd, double) {
  Call call("aten::batch_norm_elemt");
  const auto x = call.host(input);
  auto y = (x.to(at::kFloat) - per_channel(call.host(mean), x)) * per_channel(call.host(invstd), x);
  if (auto w = call.host(weight)) y = y * per_channel(*w, x);
  if (auto b = call.host(bias)) y = y + per_channel(*b, x);
  return call.result(y.to(x.scalar_type()));
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_backward_reduce(const Tensor& gradient, const Tensor& input, const Tensor& mean,
                                                                             const Tensor& invstd, const OptionalTensor&, bool,
                                                                             bool for_weight, bool for_bias) {
  Call call("aten::batch_norm_backward_reduce");
  const auto g = call.host(gradient).to(at::kFloat), x = call.host(input).to(at::kFloat);
  const auto dims = all_but_channels(g);
  const auto sum = g.sum(dims);
  const auto product = (g * (x - per_channel(call.host(mean), x))).sum(dims);
  return {call.result(sum), call.result(product), for_weight ? call.result(product * call.host(invstd)) : Tensor(),
          for_bias ? call.result(sum.clone()) : Tensor()};
}

inline Tensor batch_norm_backward_elemt(const Tensor& gradient, const Tensor& input, const Tensor& mean, const Tensor& invstd,
                                        const OptionalTensor& weight, const Tensor& sum, const Tensor& product, const Tensor& counts) {
  Call call("aten::batch_norm_backward_elemt");
  const auto x = call.host(input);
  const auto total = call.host(counts).sum().to(at::kFloat);
  const auto i = per_channel(call.host(invstd), x);
  auto result = call.host(gradient).to(at::kFloat) - per_channel(call.host(sum), x) / total -
                (x.to(at::kFloat) - per_channel(call.host(mean), x)) * i * i * per_channel(call.host(product), x) / total;
  result = result * i;
  if (auto w = call.host(weight)) result = result * per_channel(*w, x);
  return call.result(result.to(x.scalar_type()));
}

#if !TORCH_AT_LEAST(2, 6)
// Later versions of torch ask the device's hooks instead.
inline bool tensor_is_pinned(const Tensor& self, std::optional<c10::Device>) { return is_pinned(self.storage().data()); }

inline Tensor pin_memory(const Tensor& self, std::optional<c10::Device>) {
  const auto bytes = at::detail::computeStorageNbytes(self.sizes(), self.strides(), self.dtype().itemsize());
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes, pinned_allocator.allocate(bytes), &pinned_allocator, false);
  return at::empty({0}, self.options()).set_(storage, 0, self.sizes(), self.strides()).copy_(self);
}
#endif

}  // namespace simulated

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
#if !TORCH_AT_LEAST(2, 6)
  library.impl("is_pinned", TORCH_FN(simulated::tensor_is_pinned));
  library.impl("_pin_memory", TORCH_FN(simulated::pin_memory));
#endif
  library.impl("empty.memory_format", TORCH_FN(simulated::empty));
  library.impl("empty_strided", TORCH_FN(simulated::empty_strided));
  library.impl("_copy_from", TORCH_FN(simulated::copy_from));
  library.impl("_copy_from_and_resize", TORCH_FN(simulated::copy_from_and_resize));
  library.impl("resize_", TORCH_FN(simulated::resize_));
  library.impl("set_.source_Storage_storage_offset", TORCH_FN(simulated::set_part));
  library.impl("set_.source_Storage", TORCH_FN(simulated::set_storage));
  library.impl("set_.source_Tensor", TORCH_FN(simulated::set_tensor));
  library.impl("set_", TORCH_FN(simulated::set_nothing));
  library.impl("convolution_overrideable", TORCH_FN(simulated::convolution));
  library.impl("convolution_backward_overrideable", TORCH_FN(simulated::convolution_backward));
  library.impl("batch_norm_stats", TORCH_FN(simulated::batch_norm_stats));
  library.impl("batch_norm_gather_stats_with_counts", TORCH_FN(simulated::batch_norm_gather_stats_with_counts));
  library.impl("batch_norm_elemt", TORCH_FN(simulated::batch_norm_elemt));
  library.impl("batch_norm_backward_reduce", TORCH_FN(simulated::batch_norm_backward_reduce));
  library.impl("batch_norm_backward_elemt", TORCH_FN(simulated::batch_norm_backward_elemt));
}
