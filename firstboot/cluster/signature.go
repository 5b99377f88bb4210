package cluster

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
)

// signaturePrefix begins the keys of cluster-info under which each token's
// signature stands (k8s.io/cluster-bootstrap/token/api).
const signaturePrefix = "jws-kubeconfig-"

// verifyInfo says whether signature is token's over content: a JWS in compact
// form whose payload is left out (RFC 7515, appendix F), signed with HMAC of
// SHA-256 by the token's secret half.
func verifyInfo(signature, content string, token config.Secret) error {
	id, err := TokenID(token)
	if err != nil {
		return err
	}
	parts := strings.Split(signature, ".")
	if len(parts) != 3 || parts[1] != "" {
		return errors.New("it is no detached JWS")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return errors.New("its header is no base64")
	}
	var header struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
	}
	if err := json.Unmarshal(b, &header); err != nil || header.Algorithm != "HS256" || header.KeyID != id {
		return errors.New("its header does not name this token and HMAC of SHA-256")
	}
	got, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return errors.New("it is no base64")
	}
	if !hmac.Equal(got, sign(parts[0], content, token)) {
		return errors.New("it is another secret's, or of another content")
	}
	return nil
}

// SignInfo signs content with token, as the controller manager does.
func SignInfo(content string, token config.Secret) (string, error) {
	id, err := TokenID(token)
	if err != nil {
		return "", err
	}
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"` + id + `"}`))
	return header + ".." + base64.RawURLEncoding.EncodeToString(sign(header, content, token)), nil
}

func sign(header, content string, token config.Secret) []byte {
	_, secret, _ := strings.Cut(token.Reveal(), ".")
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(header + "." + base64.RawURLEncoding.EncodeToString([]byte(content))))
	return mac.Sum(nil)
}
