package config

import (
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// zeroOf is the zero value of a scalar type as JSON decoding gives it.
func zeroOf(typ string) any {
	switch typ {
	case "string":
		return ""
	case "bool":
		return false
	case "duration":
		return "0s"
	case "quantity":
		return "0"
	case "time":
		return nil
	}
	return float64(0)
}

// normal writes a duration or quantity as its own type does: "60s" → "1m0s".
func normal(typ string, v any) any {
	s, ok := v.(string)
	if !ok {
		return v
	}
	if typ == "quantity" {
		if q, err := resource.ParseQuantity(s); err == nil {
			return q.String()
		}
		return v
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return v
	}
	if typ == "nanoseconds" {
		return int64(d)
	}
	return d.String()
}
