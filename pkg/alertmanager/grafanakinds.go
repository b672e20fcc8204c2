package alertmanager

import (
	"math"
	"net/url"
	"strings"
)

// The texts that notifications have if their settings do not say otherwise.
const (
	defaultTitle   = `{{ template "default.title" . }}`
	defaultMessage = `{{ template "default.message" . }}`
)

// kindOf returns the list of upstream's configuration that the integrations of a type are in, and what makes
// them of settings; empty: there is none.
func kindOf(name string) (list string, make func(*settings) []node) {
	one := func(f func(*settings) node) func(*settings) []node {
		return func(s *settings) []node { return []node{f(s)} }
	}
	switch name {
	case "webhook":
		return "webhook_configs", one(webhookOf)
	case "slack":
		return "slack_configs", one(slackOf)
	case "email":
		return "email_configs", emailsOf
	case "pagerduty":
		return "pagerduty_configs", one(pagerdutyOf)
	case "opsgenie":
		return "opsgenie_configs", one(opsgenieOf)
	case "discord":
		return "discord_configs", one(discordOf)
	case "telegram":
		return "telegram_configs", one(telegramOf)
	case "pushover":
		return "pushover_configs", one(pushoverOf)
	case "victorops":
		return "victorops_configs", one(victoropsOf)
	case "webex":
		return "webex_configs", one(webexOf)
	case "teams":
		return "msteamsv2_configs", one(teamsOf)
	case "sns":
		return "sns_configs", one(snsOf)
	case "jira":
		return "jira_configs", one(jiraOf)
	}
	return "", nil
}

// put sets what is not empty.
func put(n node, name string, v any) {
	switch v := v.(type) {
	case string:
		if v == "" {
			return
		}
	case map[string]string:
		if len(v) == 0 {
			return
		}
	case int64:
		if v == 0 {
			return
		}
	case node:
		if len(v) == 0 {
			return
		}
	}
	n[name] = v
}

func webhookOf(s *settings) node {
	n, client := node{"url": s.need("url")}, node{}
	if m := s.text("httpMethod"); m != "" && m != "POST" {
		s.wrong("httpMethod", "cannot be honoured: webhooks are sent with POST")
	}
	put(n, "max_alerts", s.number("maxAlerts", 0))
	if user, password := s.text("username"), s.text("password"); user != "" || password != "" {
		client["basic_auth"] = node{"username": user, "password": password}
	}
	scheme, credentials := s.text("authorization_scheme"), s.text("authorization_credentials")
	if credentials != "" {
		auth := node{"credentials": credentials}
		put(auth, "type", scheme)
		client["authorization"] = auth
	}
	headers := node{}
	for name, value := range s.pairs("headers") {
		if strings.Contains(value, "{{") {
			s.wrong("headers", "cannot be honoured: headers are no templates")
		}
		headers[name] = node{"secrets": []string{value}}
	}
	put(client, "http_headers", headers)
	s.within("tlsConfig", func(s *settings) {
		secure := node{}
		if s.flag("insecureSkipVerify", false) {
			secure["insecure_skip_verify"] = true
		}
		put(secure, "ca", s.text("caCertificate"))
		put(secure, "cert", s.text("clientCertificate"))
		put(secure, "key", s.text("clientKey"))
		put(client, "tls_config", secure)
	})
	put(n, "http_config", client)
	s.without("the body of webhooks is that of the Prometheus Alertmanager", "title", "message", "payload")
	s.without("webhooks are not signed", "hmacConfig")
	return n
}

func slackOf(s *settings) node {
	n := node{"title": s.template("title", `{{ template "slack.default.title" . }}`), "text": s.template("text", `{{ template "slack.default.text" . }}`)}
	if hook := strings.TrimSpace(s.text("url")); hook != "" {
		n["api_url"] = hook
		s.without("it is for tokens and not for webhooks", "token", "endpointUrl")
	} else {
		n["app_token"] = s.need("token")
		n["app_url"] = "https://slack.com/api/chat.postMessage"
		put(n, "app_url", s.text("endpointUrl"))
		s.need("recipient")
	}
	put(n, "channel", s.template("recipient", ""))
	put(n, "username", s.template("username", ""))
	put(n, "icon_emoji", s.template("icon_emoji", ""))
	put(n, "icon_url", s.template("icon_url", ""))
	put(n, "color", s.template("color", ""))
	put(n, "footer", s.template("footer", ""))
	var mentions []string
	switch who := s.text("mentionChannel"); who {
	case "":
	case "here", "channel":
		mentions = append(mentions, "<!"+who+">")
	default:
		s.wrong("mentionChannel", "is neither here nor channel")
	}
	for setting, mark := range map[string]string{"mentionUsers": "@", "mentionGroups": "!subteam^"} {
		for _, who := range listed(s.text(setting)) {
			if strings.ContainsAny(who, "<>{}") {
				s.wrong(setting, "has a name with one of <>{}")
			}
			mentions = append(mentions, "<"+mark+who+">")
		}
	}
	put(n, "pretext", strings.Join(ordered(mentions), " "))
	return n
}

// emailsOf makes one mail for all addresses, or one for each.
func emailsOf(s *settings) []node {
	smtp := s.texts.smtp
	if smtp.Host == "" {
		s.wrong("addresses", "cannot be honoured: the configuration has no smtp_config with a host")
	}
	addresses := listed(s.need("addresses"))
	if len(addresses) == 0 || len(addresses) > maxAddresses {
		s.wrong("addresses", "has none, or over %d", maxAddresses)
		return nil
	}
	base := node{"headers": smtp.headers(s.template("subject", defaultTitle)), "text": s.template("message", defaultMessage)}
	if s.text("message") != "" {
		base["html"] = ""
	}
	smtp.put(base)
	if s.flag("singleEmail", false) {
		addresses = []string{strings.Join(addresses, ", ")}
	}
	var out []node
	for _, to := range addresses {
		one := node{"to": to}
		for k, v := range base {
			one[k] = v
		}
		out = append(out, one)
	}
	return out
}

// maxAddresses bounds the mails that one notification is.
const maxAddresses = 50

func pagerdutyOf(s *settings) node {
	n := node{"routing_key": s.need("integrationKey"), "description": s.template("summary", defaultMessage), "severity": s.template("severity", "critical")}
	for from, to := range map[string]string{"class": "class", "component": "component", "group": "group", "source": "source", "client": "client", "client_url": "client_url"} {
		put(n, to, s.template(from, ""))
	}
	put(n, "details", s.pairs("details"))
	put(n, "url", s.text("url"))
	return n
}

func opsgenieOf(s *settings) node {
	n := node{"api_key": s.need("apiKey"), "message": s.template("message", defaultTitle), "description": s.template("description", defaultMessage)}
	if at := s.text("apiUrl"); at != "" {
		base, found := strings.CutSuffix(strings.TrimSuffix(at, "/"), "/v2/alerts")
		if !found {
			s.wrong("apiUrl", "does not end with /v2/alerts")
		}
		n["api_url"] = base + "/"
	}
	if !s.flag("autoClose", true) {
		n["send_resolved"] = false
	}
	if s.flag("overridePriority", true) {
		n["priority"] = `{{ .CommonLabels.og_priority }}`
	}
	switch as := s.text("sendTagsAs"); as {
	case "", "tags", "both":
		n["tags"] = `{{ range .CommonLabels.SortedPairs }}{{ .Name }}:{{ .Value }},{{ end }}`
	case "details": // they are sent at all times
	default:
		s.wrong("sendTagsAs", "is none of tags, details and both")
	}
	if list, ok := s.get("responders").([]any); ok {
		var all []node
		for _, r := range list {
			in := &settings{receiver: s.receiver, kind: s.kind, values: map[string]any{}, looked: map[string]bool{}, texts: s.texts}
			if v, ok := r.(map[string]any); ok {
				in.values = v
			}
			one := node{}
			for _, name := range []string{"id", "name", "username", "type"} {
				put(one, name, in.template(name, ""))
			}
			in.rest("responders.")
			if s.problem == nil {
				s.problem = in.problem
			}
			all = append(all, one)
		}
		n["responders"] = all
	} else if asks(s.get("responders")) {
		s.wrong("responders", "is no list")
	}
	return n
}

func discordOf(s *settings) node {
	n := node{"webhook_url": s.need("url"), "title": s.template("title", defaultTitle), "message": s.template("message", defaultMessage)}
	put(n, "avatar_url", s.template("avatar_url", ""))
	if !s.flag("use_discord_username", false) {
		n["username"] = "Grafana"
	}
	return n
}

func telegramOf(s *settings) node {
	n := node{"bot_token": s.need("bottoken"), "message": s.template("message", defaultMessage)}
	s.need("chatid")
	n["chat_id"] = s.number("chatid", math.MinInt64)
	put(n, "message_thread_id", s.number("message_thread_id", 0))
	switch mode := s.text("parse_mode"); strings.ToLower(mode) {
	case "", "html":
		n["parse_mode"] = "HTML"
	case "none":
		n["parse_mode"] = ""
	case "markdown":
		n["parse_mode"] = "Markdown"
	case "markdownv2":
		n["parse_mode"] = "MarkdownV2"
	default:
		s.wrong("parse_mode", "is none of None, HTML, Markdown and MarkdownV2")
	}
	n["disable_notifications"] = s.flag("disable_notifications", false) || s.flag("disable_notification", false)
	s.without("messages are sent with a preview of pages", "disable_web_page_preview")
	s.without("messages may be passed on", "protect_content")
	return n
}

func pushoverOf(s *settings) node {
	n := node{"token": s.need("apiToken"), "user_key": s.need("userKey"), "title": s.template("title", defaultTitle), "message": s.template("message", defaultMessage)}
	either := func(firing, resolved string) string {
		if firing == resolved {
			return firing
		}
		return `{{ if eq .Status "firing" }}` + firing + `{{ else }}` + resolved + `{{ end }}`
	}
	level := func(name string) string {
		v := s.text(name)
		switch v {
		case "", "-2", "-1", "0", "1", "2":
		default:
			s.wrong(name, "is no number from -2 to 2")
		}
		if v == "" {
			return "0"
		}
		return v
	}
	n["priority"] = either(level("priority"), level("okPriority"))
	put(n, "sound", either(s.template("sound", ""), s.template("okSound", "")))
	put(n, "device", s.template("device", ""))
	for _, name := range []string{"retry", "expire", "ttl"} {
		if seconds := s.number(name, 0); seconds > 0 {
			n[name] = s.text(name) + "s"
		}
	}
	s.flag("uploadImage", true) // there are no images of panels here
	return n
}

// victoropsOf takes the address apart: upstream has its last two parts, the key and the route, by themselves.
func victoropsOf(s *settings) node {
	n := node{"message_type": s.template("messageType", "CRITICAL"), "entity_display_name": s.template("title", defaultTitle),
		"state_message": s.template("description", defaultMessage), "monitoring_tool": "Grafana"}
	u, err := url.Parse(s.need("url"))
	if err != nil || u.Host == "" || u.RawQuery != "" {
		s.wrong("url", "is no address")
		return n
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if len(parts) < 3 {
		s.wrong("url", "does not end with a key and a routing key")
		return n
	}
	last := len(parts) - 2
	n["api_key"], n["routing_key"] = parts[last], parts[last+1]
	n["api_url"] = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/" + strings.Join(parts[:last], "/") + "/"}).String()
	return n
}

func webexOf(s *settings) node {
	n := node{"room_id": s.need("room_id"), "message": s.template("message", defaultMessage),
		"http_config": node{"authorization": node{"credentials": s.need("bot_token")}}}
	put(n, "api_url", s.text("api_url"))
	return n
}

func teamsOf(s *settings) node {
	n := node{"webhook_url": s.need("url"), "title": s.template("title", defaultTitle), "text": s.template("message", defaultMessage)}
	s.without("messages have one section without a title", "sectiontitle")
	return n
}

func snsOf(s *settings) node {
	n := node{"subject": s.template("subject", defaultTitle), "message": s.template("message", defaultMessage)}
	for _, name := range []string{"topic_arn", "phone_number", "target_arn"} {
		put(n, name, s.template(name, ""))
	}
	put(n, "api_url", s.text("api_url"))
	put(n, "attributes", s.pairs("attributes"))
	s.within("sigv4", func(s *settings) {
		sign := node{}
		for _, name := range []string{"region", "access_key", "secret_key", "profile", "role_arn"} {
			put(sign, name, s.text(name))
		}
		put(n, "sigv4", sign)
	})
	return n
}

func jiraOf(s *settings) node {
	n := node{"api_url": s.need("api_url"), "project": s.need("project"), "issue_type": s.need("issue_type"),
		"summary": s.template("summary", defaultTitle), "description": s.template("description", defaultMessage)}
	for _, name := range []string{"priority", "resolve_transition", "reopen_transition", "reopen_duration", "wont_fix_resolution"} {
		put(n, name, s.template(name, ""))
	}
	var labels []string
	list, _ := s.get("labels").([]any)
	for _, l := range list {
		text, ok := l.(string)
		if !ok {
			s.wrong("labels", "has one that is no text")
		}
		labels = append(labels, text)
	}
	if len(labels) > 0 {
		n["labels"] = labels
	} else if asks(s.get("labels")) {
		s.wrong("labels", "is no list")
	}
	put(n, "fields", s.pairs("fields"))
	if token := s.text("api_token"); token != "" {
		n["http_config"] = node{"authorization": node{"credentials": token}}
		s.without("there is an api_token", "user", "password")
	} else {
		n["http_config"] = node{"basic_auth": node{"username": s.need("user"), "password": s.need("password")}}
	}
	return n
}
