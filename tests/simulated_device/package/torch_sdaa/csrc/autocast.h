// Autocast: torch's own lists of operators, under the key of an out-of-tree device.
#pragma once
#include <ATen/autocast_mode.h>
#include <torch/library.h>

namespace at::autocast {

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }

// torch's macros name the library `m` and live in this namespace; torch before 2.5 has none of them.
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
#ifdef AT_FORALL_LOWER_PRECISION_FP
#define SIMULATED_LOWER(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
  AT_FORALL_LOWER_PRECISION_FP(SIMULATED_LOWER)
#define SIMULATED_FP32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
  AT_FORALL_FP32(SIMULATED_FP32)
#define SIMULATED_DTYPE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
  AT_FORALL_FP32_SET_OPT_DTYPE(SIMULATED_DTYPE)
  AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE(KERNEL_DIFFERENT_REDISPATCH_SIGNATURE_PRIVATEUSEONE)
#define SIMULATED_PROMOTE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
  AT_FORALL_PROMOTE(SIMULATED_PROMOTE)
#endif
}

}  // namespace at::autocast
