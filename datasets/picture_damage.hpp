// Damage that the decoder of pictures does not see, or that would make it write past its tables.
#pragma once

#include <string>
#include <string_view>

namespace goshawk {

/// What is wrong with the JPEG or PNG file in `bytes`, such as "a truncated JPEG file". Empty when nothing
/// was found, which leaves the rest to the decoder, and for other kinds of files.
std::string find_picture_damage(std::string_view bytes);

}  // namespace goshawk
