package alert

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/failfast-go/breaker"
)

// SignatureHeader is the header by which a webhook's receiver knows who sent a message:
//
//	Breaker-Signature: t=1732230000,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd
//
// t is when it was sent, in seconds since 1970; v1 is the HMAC with SHA-256, in hexadecimal and keyed with the channel's secret, of
// t as written, a full stop, and the body as it is on the wire. A receiver works it out anew, compares without leaking time,
// and refuses a t that is more than a few minutes off, which leaves little time to replay a message; the id in the body tells one
// that comes twice. [Verify] does this. Without a secret there is no such header.
const SignatureHeader = "Breaker-Signature"

// webhook posts an [Alert] as JSON to any receiver.
type webhook struct {
	client *http.Client
	url    string
	secret []byte
}

func (w *webhook) send(ctx context.Context, d *delivery) error {
	body, err := encode(&d.alert)
	if err != nil {
		return err
	}
	header := http.Header{}
	if len(w.secret) > 0 {
		header.Set(SignatureHeader, sign(w.secret, body, time.Now()))
	}
	return post(ctx, w.client, w.url, body, header)
}

func sign(secret, body []byte, now time.Time) string {
	t := strconv.FormatInt(now.Unix(), 10)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac(secret, t, body))
}

func mac(secret []byte, t string, body []byte) []byte {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(t + "."))
	m.Write(body)
	return m.Sum(nil)
}

// verifyWithin is how far the clocks of sender and receiver, and the way between them, may be apart.
const verifyWithin = 5 * time.Minute

// Verify says whether a webhook's message is what a sender with that secret sent less than five minutes ago; now is the time. The
// body is the request's, untouched. It is for receivers written in Go; see [SignatureHeader] for others.
func Verify(secret breaker.Secret, header http.Header, body []byte, now time.Time) error {
	if secret == "" {
		return errors.New("alert: no secret to verify with: anyone can sign with an empty one")
	}
	t, rest, ok := strings.Cut(strings.TrimPrefix(header.Get(SignatureHeader), "t="), ",v1=")
	given, err := hex.DecodeString(rest)
	sent, notNumber := strconv.ParseInt(t, 10, 64)
	if !ok || err != nil || notNumber != nil {
		return fmt.Errorf("alert: the request has no signature: want the header %s: t=SECONDS,v1=HEX", SignatureHeader)
	}
	if !hmac.Equal(given, mac([]byte(secret), t, body)) {
		return errors.New("alert: the signature does not fit the body: another secret, or the message was changed")
	}
	if age := now.Sub(time.Unix(sent, 0)); age.Abs() > verifyWithin {
		return fmt.Errorf("alert: the message was signed %v away from now: an old one sent again, or a clock is wrong", age.Round(time.Second))
	}
	return nil
}
