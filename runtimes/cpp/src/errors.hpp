// The error classes are public, and so is their header.
#pragma once
#include "mythos_runtime.hpp"
