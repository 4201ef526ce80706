// A file that a user named for output: looked at before the work, written whole, and what is wrong in one sentence
// (mythos_runtime/outputs.py).
#pragma once

#include <string>

// Refuses before the work what could not be written after it: RequestError, or Error with code 3 of a disk that is full
// or closed. Nothing is made.
void check_output(const std::string& path, const std::string& option);
// Writes the file whole, or leaves what was there before; errors as above.
void write_output(const std::string& path, const std::string& text, const std::string& option);
