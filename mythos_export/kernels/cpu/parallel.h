// How the operators run in parallel and where they keep what is between two steps; both know nothing of ONNX Runtime.
#pragma once
#include <atomic>
#include <cstddef>
#include <exception>
#include <iterator>
#include <new>
#include <type_traits>

namespace mythos {

// Threads that somebody else owns: ONNX Runtime's pool in the library, std::thread in the tests.
class Parallel {
 public:
  virtual ~Parallel() = default;
  // Calls task(data, i) once for each i < n, in any order, on any thread, and returns when all are done.
  virtual void run(size_t n, void (*task)(void*, size_t), void* data) const = 0;

  // f(i) for each i < n; `work` is the number of multiplications of all of them: waking threads costs some
  // microseconds. The first exception of a task is thrown again here.
  template <class F>
  void each(size_t n, size_t work, F&& f) const {
    if (n <= 1 || work < kWorthWaking) {
      for (size_t i = 0; i < n; ++i) f(i);
      return;
    }
    struct Shared {
      std::remove_reference_t<F>& f;
      std::atomic_flag failed = ATOMIC_FLAG_INIT;
      std::exception_ptr error{};
    } shared{f};
    run(
        n,
        [](void* data, size_t i) {
          Shared& s = *static_cast<Shared*>(data);
          try {
            s.f(i);
          } catch (...) {
            if (!s.failed.test_and_set()) s.error = std::current_exception();
          }
        },
        &shared);
    if (shared.error) std::rethrow_exception(shared.error);
  }

 private:
  static constexpr size_t kWorthWaking = 100000;
};

// `n` uninitialised elements on cache lines of their own: in the object if there is room, for a decoded token needs
// dozens of such, and the allocator takes longer than what is done with them.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t n)
      : data_(n <= std::size(room_) ? room_ : static_cast<T*>(::operator new(n * sizeof(T), kAlign))) {
    static_assert(std::is_trivially_copyable_v<T>);
  }
  ~Buffer() {
    if (data_ != room_) ::operator delete(const_cast<std::remove_const_t<T>*>(data_), kAlign);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }
  T& operator[](size_t i) const { return data_[i]; }

 private:
  static constexpr std::align_val_t kAlign{64};
  alignas(64) T room_[512 / sizeof(T)];
  T* data_;
};

// What one task should read of the weights: small enough for even shares, large enough to stream.
constexpr size_t kTaskBytes = 128 * 1024;
// What a block of activation rows may take of a processor's second-level cache.
constexpr size_t kCachedBytes = 256 * 1024;

constexpr size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
constexpr size_t round_up(size_t a, size_t b) { return ceil_div(a, b) * b; }

}  // namespace mythos
