package metadata

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/kbuild/kbuild/firstboot/outcome"
)

// answer is what a server said.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ask sends one request and reads the whole answer, up to the size of
// user-data. Its error is a Retry unless the answer is too large.
func ask(ctx context.Context, client *http.Client, method, url string, header map[string]string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return answer{}, err
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, outcome.Retry{Why: reason(err)}
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	a.body, err = readAll(resp.Body)
	if errors.Is(err, errTooLarge) {
		return a, fmt.Errorf("the answer is %w", err)
	}
	if err != nil {
		return a, outcome.Retry{Why: "the answer breaks off: " + reason(err)}
	}
	return a, nil
}

// notOK is the error of an answer that is none: a server that is busy or broken
// may mend, which of the others do is for the caller to say.
func (a answer) notOK(mends bool) error {
	what := fmt.Sprintf("it answers %d %s", a.status, http.StatusText(a.status))
	if a.status < 500 && a.status != http.StatusTooManyRequests && !mends {
		return errors.New(what)
	}
	return outcome.Retry{Why: what, After: a.retryAfter()}
}

// retryAfter is how long the server asks to be left alone (RFC 9110, 10.2.3),
// within reason.
func (a answer) retryAfter() time.Duration {
	n, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(n)*time.Second, time.Minute)
}

// reason is why a request failed, in words that stay the same from try to try:
// without the port of our end, which is another one each time.
func reason(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
		return "no answer in time"
	}
	if d, ok := errors.AsType[*net.DNSError](err); ok {
		if d.IsNotFound {
			return "the name " + d.Name + " does not exist"
		}
		return "the name " + d.Name + " cannot be resolved"
	}
	if o, ok := errors.AsType[*net.OpError](err); ok {
		err = o.Err
	}
	return err.Error()
}
