package service

import (
	"encoding/json"
	"errors"
	"net/http"
)

// ErrPlayed is the error of a vector store that was told to fail.
var ErrPlayed = errors.New("played outage")

// faults makes an embedded upstream misbehave: the model in the ways of modelserver.Fault, the vector store by failing.
func (s *Service) faults(w http.ResponseWriter, r *http.Request) {
	switch name := r.PathValue("name"); {
	case name == LLM && s.Model != nil:
		s.Model.ServeFault(w, r)
	case name == VectorDB:
		s.faultVectors(w, r)
	default:
		writeJSON(w, http.StatusNotFound, problem{"no embedded upstream of that name can be made to fail: want llm or vectordb"})
	}
}

func (s *Service) faultVectors(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Fault string `json:"fault"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in)
	switch {
	case err == nil && in.Fault == "none":
		s.Vectors.Break(nil)
	case err == nil && in.Fault == "error":
		s.Vectors.Break(ErrPlayed)
	default:
		writeJSON(w, http.StatusBadRequest, problem{`want {"fault": "error"} or {"fault": "none"}`})
		return
	}
	writeJSON(w, http.StatusOK, in)
}
