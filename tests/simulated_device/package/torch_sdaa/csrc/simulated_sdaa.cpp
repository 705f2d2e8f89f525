// The simulated `sdaa` device: an out-of-tree PyTorch backend over host memory. One translation unit, so that it builds quickly.
#include "autocast.h"
#include "call.h"
#include "common.h"
#include "fallback.h"
#include "faults.h"
#include "kernels.h"
#include "memory.h"
#include "runtime.h"
#include "tccl.h"

#include <torch/extension.h>
#include <torch/csrc/utils/pybind.h>

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  static simulated::Hooks hooks;
  if (!c10::Dispatcher::singleton().hasBackendFallbackForDispatchKey(c10::DispatchKey::AutogradPrivateUse1)) {
    static torch::Library library(torch::Library::IMPL, "_", c10::DispatchKey::AutogradPrivateUse1, __FILE__, __LINE__);
    library.fallback(torch::CppFunction::makeFallthrough());
  }
  if (!at::isPrivateUse1HooksRegistered()) at::RegisterPrivateUse1HooksInterface(&hooks);

  module.def("device_count", [] { return static_cast<int>(simulated::device_count()); });
  module.def("current_device", [] { return static_cast<int>(simulated::current_device); });
  module.def("set_device", [](int index) { simulated::set_current_device(static_cast<c10::DeviceIndex>(index)); });
  module.def("default_generator", [](int index) { return simulated::default_generator(static_cast<c10::DeviceIndex>(index)); });

  module.def("memory", [](int index) {
    return std::make_tuple(simulated::usage[index].now.load(), simulated::usage[index].peak.load());
  });
  module.def("reset_peak_memory", [](int index) { simulated::usage[index].peak = simulated::usage[index].now.load(); });
  module.def("total_memory", [] { return simulated::total_memory.load(); });
  module.def("set_total_memory", [](int64_t bytes) { simulated::total_memory = bytes; });

  module.def("add_fault", [](const std::string& kind, const std::string& op, double by, const std::string& where, int64_t call, int signal) {
    static int64_t last = 0;
    std::lock_guard<std::mutex> lock(simulated::faults_mutex);
    simulated::faults.push_back({++last, kind, op, by, where, call, signal});
    simulated::any_fault = true;
    return last;
  });
  module.def("remove_fault", [](int64_t id) {
    std::lock_guard<std::mutex> lock(simulated::faults_mutex);
    auto& all = simulated::faults;
    all.erase(std::remove_if(all.begin(), all.end(), [id](const auto& fault) { return fault.id == id; }), all.end());
    simulated::any_fault = !all.empty();
  });
  module.def("fault_done", [](int64_t id) {
    std::lock_guard<std::mutex> lock(simulated::faults_mutex);
    for (const auto& fault : simulated::faults)
      if (fault.id == id) return fault.done;
    return int64_t(0);
  });
  module.def("calls", [] {
    std::lock_guard<std::mutex> lock(simulated::faults_mutex);
    return simulated::calls;
  });
  module.def("knows", [](const std::string& asked) {
    for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
      const auto full = c10::toString(name);
      if (full.rfind("aten::", 0) == 0 && simulated::matches(asked, full)) return true;
    }
    return false;
  });

  module.def("make_tccl", [](const c10::intrusive_ptr<c10d::Backend>& gloo) -> c10::intrusive_ptr<c10d::Backend> {
    return c10::make_intrusive<simulated::Tccl>(gloo);
  });
}
