// Memory: host memory that is counted, and refused above a limit, as if it were the device's own.
#pragma once
#include "common.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#if TORCH_AT_LEAST(2, 9)
#include <c10/core/CachingDeviceAllocator.h>
#endif

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>

namespace simulated {

struct Usage {
  std::atomic<int64_t> now{0};
  std::atomic<int64_t> peak{0};
};
inline Usage usage[kMostDevices];
inline std::atomic<int64_t> total_memory{int64_t(16) << 30};

inline void reserve(c10::DeviceIndex device, int64_t bytes) {
  auto& used = usage[device];
  TORCH_CHECK_WITH(OutOfMemoryError, used.now + bytes <= total_memory, "SDAA out of memory. Tried to allocate ", bytes,
                   " bytes. Simulated device ", static_cast<int>(device), " has a total capacity of ", total_memory.load(),
                   " bytes of which ", total_memory - used.now, " bytes are free.");
  const int64_t now = (used.now += bytes);
  int64_t peak = used.peak;
  while (now > peak && !used.peak.compare_exchange_weak(peak, now)) {
  }
}

// What a device storage holds: bytes of its own, or a host storage that an operator of the CPU made.
struct Block {
  c10::DataPtr own;
  c10::Storage adopted;
  c10::DeviceIndex device;
  int64_t bytes;
};

inline void release(void* pointer) {
  auto* block = static_cast<Block*>(pointer);
  usage[block->device].now -= block->bytes;
  delete block;
}

inline c10::DataPtr adopt(const c10::Storage& host, c10::DeviceIndex device) {
  const auto bytes = static_cast<int64_t>(host.nbytes());
  reserve(device, bytes);
  auto* block = new Block{{}, host, device, bytes};
  return {host.unsafeGetStorageImpl()->mutable_data(), block, &release, c10::Device(kDevice, device)};
}

#if TORCH_AT_LEAST(2, 9)
struct Allocator final : c10::DeviceAllocator {
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    c10::CachingDeviceAllocator::DeviceStats stats;
    for (auto* stat : {&stats.allocated_bytes[0], &stats.reserved_bytes[0]}) {
      stat->current = usage[device].now;
      stat->peak = usage[device].peak;
    }
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex device) override { usage[device].peak = usage[device].now.load(); }
#if TORCH_AT_LEAST(2, 10)
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex device) override {
    return {total_memory - usage[device].now, total_memory.load()};
  }
#endif
#else
struct Allocator final : c10::Allocator {
#endif
  c10::DataPtr allocate(size_t bytes) override {
    const auto device = current_device;
    if (bytes == 0) return {nullptr, nullptr, &release, c10::Device(kDevice, device)};
    reserve(device, static_cast<int64_t>(bytes));
    auto* block = new Block{c10::GetCPUAllocator()->allocate(bytes), {}, device, static_cast<int64_t>(bytes)};
    return {block->own.get(), block, &release, c10::Device(kDevice, device)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};
inline Allocator allocator;
REGISTER_ALLOCATOR(kDevice, &allocator);

// Page-locked host memory: the same memory, remembered, so that is_pinned() can tell.
inline std::mutex pinned_mutex;
inline std::map<uintptr_t, size_t> pinned;

inline void release_pinned(void* pointer) {
  auto* own = static_cast<c10::DataPtr*>(pointer);
  {
    std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned.erase(reinterpret_cast<uintptr_t>(own->get()));
  }
  delete own;
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    bytes = std::max<size_t>(bytes, 1);
    auto* own = new c10::DataPtr(c10::GetCPUAllocator()->allocate(bytes));
    std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned[reinterpret_cast<uintptr_t>(own->get())] = bytes;
    return {own->get(), own, &release_pinned, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};
inline PinnedAllocator pinned_allocator;

inline bool is_pinned(const void* pointer) {
  std::lock_guard<std::mutex> lock(pinned_mutex);
  auto next = pinned.upper_bound(reinterpret_cast<uintptr_t>(pointer));
  if (next == pinned.begin()) return false;
  --next;
  return reinterpret_cast<uintptr_t>(pointer) < next->first + next->second;
}

}  // namespace simulated
