package breaker

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"net/http"
	"path"
	"time"
)

//go:embed page/*.html page/*.css page/*.js page/*.svg
var pageFS embed.FS

// pageFiles are the parts of the live page, by name.
var pageFiles = func() map[string]pageFile {
	files := map[string]pageFile{}
	entries, _ := pageFS.ReadDir("page")
	for _, e := range entries {
		text, _ := pageFS.ReadFile("page/" + e.Name())
		files[e.Name()] = pageFile{e.Name(), text, fmt.Sprintf(`"%x"`, sha256.Sum256(text))}
	}
	return files
}()

type pageFile struct {
	name    string
	content []byte
	tag     string
}

// contentTypes are not left to the machine's tables, which differ.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

func (f pageFile) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", contentTypes[path.Ext(f.name)])
	w.Header().Set("Cache-Control", "no-cache") // kept, but asked for each time: a new version shows at once
	w.Header().Set("ETag", f.tag)
	http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.content))
}
