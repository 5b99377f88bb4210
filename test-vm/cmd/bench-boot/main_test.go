package main

import (
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	of := func(r result) time.Duration { return r.api }
	odd := []result{{api: 9}, {api: 1}, {api: 4}}
	if got := median(odd, of); got != 4 {
		t.Errorf("median of 9, 1, 4 is %d, want 4", got)
	}
	if got := median(append(odd, result{api: 6}), of); got != 5 {
		t.Errorf("median of 9, 1, 4, 6 is %d, want 5", got)
	}
}
