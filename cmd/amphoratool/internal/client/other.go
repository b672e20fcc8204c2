package client

import "time"

// OpenFor opens a client of another kind of server, which has no flags but an address.
func (c *Client) OpenFor(timeout time.Duration) error {
	c.timeout = timeout
	return c.Open()
}

// Basic makes every call authenticate with a name and a password.
func (c *Client) Basic(user, password string) { c.user, c.key = user, password }
