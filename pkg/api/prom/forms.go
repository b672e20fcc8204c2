package prom

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// FormatQuery answers the query, well laid out.
func (a *API) FormatQuery(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	qs := r.Form.Get("query")
	if err := a.checkSize(r.Context(), qs); err != nil {
		return err
	}
	pretty, err := a.b.Engine.Format(r.Context(), qs)
	if err != nil {
		return paramError("query", err)
	}
	a.success(w, r, nil, "", func(out *answer) { out.buf = appendString(out.buf, pretty) })
	return nil
}

// ParseQuery answers the syntax tree of the query.
func (a *API) ParseQuery(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	qs := r.Form.Get("query")
	if err := a.checkSize(r.Context(), qs); err != nil {
		return err
	}
	tree, err := a.b.Engine.Tree(r.Context(), qs)
	if err != nil {
		return paramError("query", err)
	}
	b, err := json.Marshal(tree)
	if err != nil {
		return fmt.Errorf("encode syntax tree: %w", err)
	}
	a.success(w, r, nil, "", func(out *answer) { out.buf = append(out.buf, b...) })
	return nil
}
