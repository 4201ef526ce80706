#include "engine/pace.hpp"

#include <algorithm>
#include <cmath>

#include "row_ports.hpp"

namespace mythos::engine {
namespace {

constexpr double kCallSeconds = 0.05;  // of a call of several loops: what a newcomer may have to wait

}  // namespace

bool Pace::waits(const Traffic& traffic) {
  if (traffic.through >= traffic.looping) return false;
  if (patience_) return !enough(traffic);
  idled_ += idling(traffic);
  return idled_ < around();
}

void Pace::ran(std::int64_t loops, const Traffic& traffic) {
  if (traffic.through && loops > 1) idled_ += static_cast<double>(loops - 1) * idling(traffic);
}

std::int64_t Pace::most_loops(std::int64_t rows, const Traffic& traffic) const {
  if (traffic.looping < traffic.running || enough(traffic)) return 1;
  auto most = static_cast<double>(loops_per_call_.value_or(kMostLoops));
  if (traffic.through && !patience_) {
    const double each = idling(traffic);
    most = each > 0 ? std::min(most, std::ceil((around() - idled_) / each)) : 1;
  }
  if (!loops_per_call_) {
    const double seconds = speed_.of(kStep, static_cast<double>(rows));
    most = seconds > 0 ? std::min(most, std::floor(kCallSeconds / seconds)) : 1;
  }
  return static_cast<std::int64_t>(std::max(most, 1.0));
}

// Whether as many wait to leave as the patience that was given asks for.
bool Pace::enough(const Traffic& traffic) const {
  if (!patience_) return false;
  const double asked = std::nearbyint(*patience_ * static_cast<double>(traffic.running));  // as Python: halves to the even
  return static_cast<double>(traffic.through) >= std::max(1.0, asked);
}

// Seconds that one more loop costs those that wait to leave: of a call of the step, what it costs whatever its rows is what
// fewer rows make worse.
double Pace::idling(const Traffic& traffic) const {
  return speed_.of_call(kStep) * static_cast<double>(traffic.through) / static_cast<double>(traffic.looping);
}

// Seconds of one more call of the layers around the loop.
double Pace::around() const { return speed_.of_call(kEnter) + speed_.of_call(kLeave); }

}  // namespace mythos::engine
