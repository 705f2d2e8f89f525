// Every operator that has no kernel of its own runs as the CPU's, on the same bytes.
#pragma once
#include "call.h"
#include "runtime.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <set>

namespace simulated {

inline bool takes_host_tensors(const std::string& name) {
  static const std::set<std::string> names{"aten::index.Tensor",      "aten::index.Tensor_out", "aten::_index_put_impl_",
                                           "aten::index_put_",        "aten::copy_",            "aten::_copy_from"};
  return names.count(name) > 0;
}

// The arguments of one boxed call, exchanged for views on the host, and what has to be put back afterwards.
struct Boxed {
  Call call;
  std::string name;
  bool host_argument = false;
  at::Generator device_generator, host_generator, before_lending;
  std::vector<std::pair<at::Tensor, at::Tensor>> written;
  std::unordered_map<size_t, c10::IValue> originals;

  explicit Boxed(const std::string& of) : call(of), name(of) {}

  at::Tensor exchange(const at::Tensor& tensor, bool is_written) {
    if (tensor.defined() && tensor.device().is_cpu() && tensor.dim() > 0) host_argument = true;
    auto view = call.host(tensor, is_written);
    if (is_written) written.emplace_back(tensor, view);
    return view;
  }

  void exchange(c10::IValue& value, const c10::Argument& argument, size_t at) {
    const bool is_written = argument.alias_info() && argument.alias_info()->isWrite();
    if (value.isTensor()) {
      originals[at] = value;
      value = exchange(value.toTensor(), is_written);
    } else if (value.isTensorList()) {
      originals[at] = value;
      c10::List<at::Tensor> views;
      for (const at::Tensor& tensor : value.toTensorVector()) views.push_back(exchange(tensor, is_written));
      value = views;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> views;
      for (const auto& tensor : value.toOptionalTensorVector())
        views.push_back(tensor ? std::make_optional(exchange(*tensor, false)) : std::nullopt);
      value = views;
    } else if (value.isDevice() && value.toDevice().type() == kDevice) {
      if (!call.on_device) {
        call.device = c10::Device(kDevice, index_or_current(value.toDevice()));
        call.on_device = true;
      }
      value = c10::Device(c10::kCPU);
    } else if (argument.name() == "generator" && (value.isGenerator() || value.isNone())) {
      borrow_generator(value);
    }
  }

  void borrow_generator(c10::IValue& value) {
    if (value.isGenerator()) {
      if (value.toGenerator().device().type() == kDevice) device_generator = value.toGenerator();
    } else if (draws_on_device()) {
      device_generator = default_generator(call.on_device ? call.device.index() : -1);
    }
    if (!device_generator.defined()) return;
    host_generator = at::detail::createCPUGenerator();
    copy_generator(device_generator, host_generator);
    value = host_generator;
  }

  // Operators that draw and have no generator argument, such as native_dropout: the CPU's generator stands in for the device's.
  void lend_default_generator(const c10::OperatorHandle& op) {
    if (device_generator.defined() || !draws_on_device() || !call.on_device || !op.hasTag(at::Tag::nondeterministic_seeded)) return;
    for (const auto& argument : op.schema().arguments())
      if (argument.name() == "generator") return;
    device_generator = default_generator(call.device.index());
    host_generator = at::detail::getDefaultCPUGenerator();
    before_lending = host_generator.clone();
    copy_generator(device_generator, host_generator);
  }

  static void copy_generator(const at::Generator& from, const at::Generator& to) {
    copy_state(*static_cast<at::CPUGeneratorImpl*>(from.unsafeGetGeneratorImpl()),
               *static_cast<at::CPUGeneratorImpl*>(to.unsafeGetGeneratorImpl()));
  }

  void finish() {
    if (device_generator.defined()) copy_generator(host_generator, device_generator);
    if (before_lending.defined()) copy_generator(before_lending, host_generator);
    for (auto& [tensor, view] : written) call.wrote(tensor, view);
  }

  void restore(c10::IValue& value, const c10::Argument& returned, const std::vector<c10::Argument>& arguments) {
    const auto* alias = returned.alias_info();
    if (alias && alias->isWrite())
      for (size_t at = 0; at < arguments.size(); at++) {
        const auto* other = arguments[at].alias_info();
        if (other && *other == *alias && originals.count(at)) {
          value = originals[at];
          return;
        }
      }
    if (!call.on_device) return;
    if (value.isTensor()) {
      value = call.result(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> results;
      for (const at::Tensor& tensor : value.toTensorVector()) results.push_back(call.result(tensor));
      value = results;
    }
  }
};

inline void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto& arguments = schema.arguments();
  Boxed boxed(c10::toString(schema.operator_name()));
  const auto first = stack->size() - arguments.size();
  for (size_t at = 0; at < arguments.size(); at++) boxed.exchange((*stack)[first + at], arguments[at], at);
  TORCH_CHECK(!boxed.host_argument || !boxed.call.on_device || takes_host_tensors(boxed.name),
              "Expected all tensors to be on the same device, but found at least two devices, ", boxed.call.device, " and cpu! (", boxed.name, ")");
  boxed.lend_default_generator(op);
  op.callBoxed(stack);
  boxed.finish();
  const auto start = stack->size() - schema.returns().size();
  for (size_t at = 0; at < schema.returns().size(); at++) boxed.restore((*stack)[start + at], schema.returns()[at], arguments);
}

}  // namespace simulated

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&simulated::fallback>());
}
