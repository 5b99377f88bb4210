package images

import (
	"strings"
)

// SplitName splits an image's name from its tag, which may be missing.
func SplitName(image string) (name, tag string) {
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		return image[:i], image[i+1:]
	}
	return image, ""
}
