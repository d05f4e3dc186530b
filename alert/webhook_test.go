package alert

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

func TestAWebhooksSignatureCanBeVerified(t *testing.T) {
	s := newWeb(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 0 {
			w.WriteHeader(500)
		}
	})
	c := webhookTo(s.URL)
	c.Secret = "hunter2"
	a := newAlerter(t, []breaker.AlertChannel{c})
	a.channels[0].offer(opened("x"))
	for _, r := range s.await(t, 2) { // each attempt is signed anew
		require.NoError(t, Verify("hunter2", r.header, r.body, r.at))
		require.NoError(t, Verify("hunter2", r.header, r.body, r.at.Add(4*time.Minute)))
		require.NoError(t, Verify("hunter2", r.header, r.body, r.at.Add(-4*time.Minute)))
		require.ErrorContains(t, Verify("hunter2", r.header, r.body, r.at.Add(6*time.Minute)), "an old one sent again")
		require.ErrorContains(t, Verify("hunter2", r.header, r.body, r.at.Add(-6*time.Minute)), "a clock is wrong")
		require.ErrorContains(t, Verify("hunter3", r.header, r.body, r.at), "does not fit")
		require.ErrorContains(t, Verify("", r.header, r.body, r.at), "no secret")
		require.ErrorContains(t, Verify("hunter2", r.header, append(r.body, ' '), r.at), "does not fit")

		old := http.Header{}
		old.Set(SignatureHeader, "t=1"+strings.TrimPrefix(r.header.Get(SignatureHeader), "t="))
		require.ErrorContains(t, Verify("hunter2", old, r.body, r.at), "does not fit", "the time is signed too")

		// As the documentation says it, by hand.
		var at int64
		var sum []byte
		_, err := fmt.Sscanf(r.header.Get(SignatureHeader), "t=%d,v1=%x", &at, &sum)
		require.NoError(t, err)
		m := hmac.New(sha256.New, []byte("hunter2"))
		fmt.Fprintf(m, "%d.%s", at, r.body)
		require.Equal(t, m.Sum(nil), sum)
	}
}

func TestWhatIsNoSignatureIsRefused(t *testing.T) {
	for _, text := range []string{"", "t=,v1=", "t=1", "v1=00", "t=x,v1=00", "t=1,v1=zz", "t=1,v1=0", "nonsense"} {
		h := http.Header{}
		h.Set(SignatureHeader, text)
		require.ErrorContains(t, Verify("hunter2", h, nil, time.Unix(1, 0)), "no signature", text)
	}
}
