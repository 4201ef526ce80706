// What Python 3.11's datetime.fromisoformat accepts: calendar and week dates, extended and basic forms, an offset.
#include <string>

#include "manifest.hpp"

namespace mythos {
namespace {

// Reads `count` digits at `at`; -1 where they are not there.
int digits(std::string_view text, std::size_t at, std::size_t count) {
  if (at + count > text.size()) return -1;
  int value = 0;
  for (std::size_t i = at; i < at + count; ++i) {
    if (text[i] < '0' || text[i] > '9') return -1;
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

bool leap(int year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

int weekday_of_january_1(int year) {  // 0 is Monday
  const int y = year - 1;
  return (y * 365 + y / 4 - y / 100 + y / 400) % 7;
}

bool is_day(int year, int month, int day) {
  constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  if (year < 1 || month < 1 || month > 12 || day < 1) return false;
  return day <= kDays[month - 1] + (month == 2 && leap(year));
}

bool is_week(int year, int week, int day) {
  if (year < 1 || week < 1 || day < 1 || day > 7) return false;
  const int first = weekday_of_january_1(year);
  return week <= 52 || (week == 53 && (first == 3 || (first == 2 && leap(year))));
}

// HH[:MM[:SS[.fff]]] or the same without colons; within what a clock shows.
bool is_clock(std::string_view text) {
  const int hour = digits(text, 0, 2);
  if (hour < 0 || hour > 23) return false;
  std::size_t at = 2;
  const bool colons = at < text.size() && text[at] == ':';
  for (int part = 0; part < 2; ++part) {
    if (at == text.size()) return true;
    if (colons && text[at++] != ':') return false;
    const int value = digits(text, at, 2);
    if (value < 0 || value > 59) return false;
    at += 2;
  }
  if (at == text.size()) return true;
  if (text[at] != '.' && text[at] != ',') return false;
  return at + 1 < text.size() && text.find_first_not_of("0123456789", at + 1) == text.npos;
}

}  // namespace

bool is_iso_time(std::string_view text) {
  const int year = digits(text, 0, 4);
  if (year < 0) return false;
  const bool dashes = text.size() > 4 && text[4] == '-';
  std::size_t at = dashes ? 5 : 4;
  if (at < text.size() && text[at] == 'W') {
    const int week = digits(text, at + 1, 2);
    at += 3;
    int day = 1;
    if (at < text.size() && dashes == (text[at] == '-') && digits(text, at + dashes, 1) >= 0) {
      day = digits(text, at + dashes, 1);
      at += 1 + static_cast<std::size_t>(dashes);
    }
    if (!is_week(year, week, day)) return false;
  } else {
    const int month = digits(text, at, 2);
    at += 2;
    if (dashes && (at >= text.size() || text[at++] != '-')) return false;
    if (!is_day(year, month, digits(text, at, 2))) return false;
    at += 2;
  }
  if (at == text.size()) return true;
  const auto lead = static_cast<unsigned char>(text[at]);  // the separator is any one character
  at += lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (at >= text.size()) return false;
  std::string_view clock = text.substr(at);
  if (clock.back() == 'Z') return is_clock(clock.substr(0, clock.size() - 1));
  const std::size_t sign = clock.find_first_of("+-");
  if (sign == clock.npos) return is_clock(clock);
  return is_clock(clock.substr(0, sign)) && is_clock(clock.substr(sign + 1));
}

}  // namespace mythos
