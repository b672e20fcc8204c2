package app

import (
	"github.com/amphora-metrics/amphora/pkg/certs"
)

// certificates gets those of the HTTP listeners from a CA; nil if none are wanted. They are kept where all
// processes find them, sealed if calls are authenticated, as there is a key of the operator then.
func (a *App) certificates() (*certs.Manager, error) {
	if !a.cfg.Callers.ACME.Enabled() {
		return nil, nil
	}
	docs, err := a.documents()
	if err != nil {
		return nil, err
	}
	d := certs.Deps{Log: a.log, Reg: a.reg, Store: docs}
	if a.cfg.Callers.Gateway.Enabled {
		x, err := a.identities()
		if err != nil {
			return nil, err
		}
		d.Sealer = x
	}
	return certs.New(a.cfg.Callers.ACME, d)
}
