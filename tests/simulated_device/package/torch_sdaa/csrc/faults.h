// Faults: what can be broken on purpose, one operator at a time.
#pragma once
#include "common.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

namespace simulated {

struct Fault {
  int64_t id;
  std::string kind;      // scale, crash, hang or missing
  std::string op;        // "*", a name such as "_softmax", or one overload such as "_softmax.out"
  double by;             // scale: results are multiplied by 1 + by
  std::string where;     // scale: all, tile or strided
  int64_t call;          // 1-based; 0 is every call
  int signal;            // crash: how the process ends
  int64_t seen = 0;      // matching calls so far
  int64_t done = 0;      // calls that were really broken
};

inline std::mutex faults_mutex;
inline std::vector<Fault> faults;
inline std::atomic<bool> any_fault{false};
inline std::unordered_map<std::string, int64_t> calls;

constexpr int64_t kTile = 16;

// "aten::_softmax.out" is matched by "*", "_softmax", "_softmax.out", "aten::_softmax" and itself.
inline bool matches(const std::string& asked, const std::string& name) {
  if (asked == "*" || asked == name) return true;
  const auto start = name.find("::") + 2;
  const auto dot = name.find('.', start);
  const auto base = name.substr(start, dot == std::string::npos ? dot : dot - start);
  return asked == base || asked == name.substr(start) || asked == name.substr(0, start) + base;
}

[[noreturn]] inline void hang_here() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

// Counts a call and crashes, hangs or refuses where a fault says so; returns the faults that change its results.
inline std::vector<Fault> enter(const std::string& name) {
  std::vector<Fault> changing;
  std::unique_lock<std::mutex> lock(faults_mutex);
  calls[name]++;
  if (!any_fault) return changing;
  for (auto& fault : faults) {
    if (!matches(fault.op, name)) continue;
    fault.seen++;
    if (fault.call && fault.seen != fault.call) continue;
    if (fault.kind == "scale") {
      changing.push_back(fault);
      continue;
    }
    fault.done++;
    if (fault.kind == "missing") {
      const auto backend = c10::toString(c10::DispatchKey::PrivateUse1);
      TORCH_CHECK_NOT_IMPLEMENTED(false, "Could not run '", name, "' with arguments from the '", backend,
                                  "' backend. This could be because the operator doesn't exist for this backend, or was omitted "
                                  "during the selective/custom build process (if using custom build). [simulated fault]");
    }
    std::fprintf(stderr, "simulated sdaa: %s in %s (call %lld)\n", fault.kind.c_str(), name.c_str(), (long long)fault.seen);
    std::fflush(stderr);
    const bool crash = fault.kind == "crash";
    const int signal = fault.signal;
    lock.unlock();
    if (crash) std::raise(signal);
    hang_here();
  }
  return changing;
}

inline void was_done(int64_t id) {
  std::lock_guard<std::mutex> lock(faults_mutex);
  for (auto& fault : faults)
    if (fault.id == id) fault.done++;
}

// Multiplies a floating-point result, on the host, by 1 + by; `strided` says that an input was not contiguous.
inline void change(const std::vector<Fault>& changing, at::Tensor& result, bool strided) {
  if (changing.empty() || !result.defined() || !result.is_floating_point() || result.numel() == 0) return;
  at::AutoDispatchBelowADInplaceOrView below;
  for (const auto& fault : changing) {
    if (fault.where == "strided" && !strided) continue;
    auto part = result;
    if (fault.where == "tile") {
      while (part.dim() > 2) part = part.select(0, 0);
      for (int64_t dim = 0; dim < part.dim(); dim++) {
        const auto size = std::min(kTile, part.size(dim));
        part = part.narrow(dim, part.size(dim) - size, size);
      }
    }
    part.mul_(1.0 + fault.by);
    was_done(fault.id);
  }
}

}  // namespace simulated
