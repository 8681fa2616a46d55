//! In a real browser: sign in, see oneself at the top, page, search, sign out; narrow, wide, dark.
//!
//! Needs Debian's `chromium` and `chromium-driver`. Without them the test says so and passes, unless
//! `CI` is set. With `SCREENSHOTS=<folder>` it leaves pictures there;
//! `dashboard.png` is the one in `docs/`.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{ADMIN, Fixture, PASSWORD, environment};
use crate::http;
use crate::process::Process;

#[tokio::test]
async fn a_person_signs_in_looks_around_and_signs_out() {
    let Some(mut driver) = Driver::start() else {
        let missing =
            "chromium and chromedriver are not installed (apt install chromium chromium-driver)";
        assert_eq!(environment("CI"), None, "{missing}");
        eprintln!("SKIPPED: {missing}");
        return;
    };
    let app = Fixture::new().await;
    let name = "INSERT INTO users (email, password_hash, display_name, role) VALUES";
    app.sql(&format!(
        "{name} ('{ADMIN}', '{}', 'Ada Admin', 'admin')",
        crate::common::cheap_hash()
    ))
    .await;
    // More on working days, more of late; two of three have signed in.
    app.sql(
        "INSERT INTO users (email, password_hash, display_name, last_login_at)
         SELECT lower(first) || '.' || lower(last) || n || '@example.com', 'x', first || ' ' || last,
                CASE WHEN n % 3 > 0 THEN at - CASE WHEN extract(isodow FROM at) > 5 AND n % 7 > 1
                                                   THEN interval '3 days' ELSE interval '0' END END
         FROM generate_series(1, 1200) AS n,
              LATERAL (SELECT now() - interval '10 min' - interval '45 days' * power(n / 1200.0, 1.4)) AS spread (at),
              LATERAL (SELECT (ARRAY['Ana', 'Bo', 'Chidi', 'Dina', 'Emre', 'Freya', 'Goran', 'Hana', 'Ines', 'Jun', 'Kofi'])[n % 11 + 1],
                              (ARRAY['Okafor', 'Lindqvist', 'Marques', 'Sato', 'Novak', 'Haddad', 'Byrne'])[n % 7 + 1]) AS names (first, last)",
    )
    .await;
    app.client
        .batch_execute("VACUUM ANALYZE users")
        .await
        .unwrap();
    let process = Process::start(&app.url());
    let home = format!("http://{}", process.address);
    let screenshots = environment("SCREENSHOTS").map(PathBuf::from);

    for (width, height, scheme) in [
        (1280, 900, "light"),
        (360, 780, "light"),
        (1280, 900, "dark"),
        (360, 780, "dark"),
    ] {
        let page = driver.session(width, height, scheme);
        let shoot = |page: &Session, name: &str| {
            if let Some(folder) = &screenshots {
                let file = folder.join(format!("{name}-{width}-{scheme}.png"));
                std::fs::write(file, page.screenshot(true)).unwrap();
            }
        };

        // Who is not signed in is led to the form, and it tells the wrong password from nothing.
        page.open(&format!("{home}/dashboard"));
        assert!(page.url().ends_with("/login"), "{}", page.url());
        assert_eq!(page.script("return document.activeElement.id"), "email");
        page.type_into("#email", ADMIN);
        page.type_into("#password", "wrong\u{e007}");
        page.wait_for("#problem");
        shoot(&page, "login");
        assert_eq!(
            page.script("return document.querySelector('#email').value"),
            ADMIN
        );

        // By keyboard alone: the password has the focus, Enter sends.
        assert_eq!(page.script("return document.activeElement.id"), "password");
        page.type_into("#password", &format!("{PASSWORD}\u{e007}"));
        page.wait_for("table.logins");
        assert!(page.url().ends_with("/dashboard"), "{}", page.url());
        let first = page.text("table.logins tbody tr:first-child");
        assert!(
            first.contains("Ada Admin") && first.contains(ADMIN) && first.contains("just now"),
            "{first}"
        );
        shoot(&page, "dashboard");
        if let (Some(folder), 1280, "light") = (&screenshots, width, scheme) {
            std::fs::write(folder.join("dashboard.png"), page.screenshot(false)).unwrap();
        }

        // Nothing sticks out to the side, and every bar of the chart is there.
        let overflow = "return document.documentElement.scrollWidth - window.innerWidth";
        assert!(
            page.script(overflow).as_i64().unwrap() <= 0,
            "{width} px: {}",
            page.script(overflow)
        );
        assert_eq!(
            page.script("return document.querySelectorAll('svg .day').length"),
            30
        );
        // The chart's words are large enough to read.
        let size = "const text = document.querySelector('svg text'); \
                    return text.getBoundingClientRect().height";
        assert!(
            page.script(size).as_f64().unwrap() > 9.0,
            "{}",
            page.script(size)
        );
        let background = page.script("return getComputedStyle(document.body).backgroundColor");
        assert_eq!(
            background == "rgb(18, 20, 26)",
            scheme == "dark",
            "{background}"
        );
        assert_eq!(page.script(CONTRAST), json!([]), "{scheme}");

        // The skip link is the first stop of the keyboard, and it works.
        page.press("\u{e004}");
        assert_eq!(
            page.script("return document.activeElement.className"),
            "skip"
        );
        // The chart's table opens without a script.
        page.click("summary");
        assert!(page.text(".figures tbody tr").contains("-"));

        // Page forth and back.
        page.click("nav.pages a[rel=next]");
        page.wait_for_address("after=");
        assert!(!page.text("table.logins tbody").contains(ADMIN));
        page.click("nav.pages a:first-child");
        page.wait_for_address("/dashboard#");
        assert!(page.text("table.logins tbody").contains(ADMIN));

        // Search; what is typed is text, whatever it looks like.
        page.type_into("#search", "hana.\u{e007}");
        page.wait_for_address("email=hana.");
        let rows = "return [...document.querySelectorAll('td.email')].every(e => e.innerText.startsWith('hana.')) \
                    && document.querySelectorAll('td.email').length";
        assert!(
            page.script(rows).as_i64().unwrap() > 10,
            "{}",
            page.script(rows)
        );
        shoot(&page, "search");
        page.clear("#search");
        page.type_into("#search", "<img src=x onerror=alert(1)>\u{e007}");
        page.wait_for_address("email=%3C");
        assert!(page.text("p.empty").contains("<img src=x"));
        shoot(&page, "nobody");

        // Sign out; the way back is closed.
        page.click("header button");
        page.wait_for("#email");
        page.back();
        page.open(&format!("{home}/dashboard"));
        assert!(page.url().ends_with("/login"));
        assert_eq!(page.errors(), Vec::<String>::new());
    }

    // And what people see while the migration has not been made.
    app.sql("ALTER TABLE users DROP COLUMN last_login_at").await;
    let page = driver.session(1280, 900, "light");
    page.open(&format!("{home}/login"));
    page.type_into("#email", ADMIN);
    page.type_into("#password", &format!("{PASSWORD}\u{e007}"));
    page.wait_for("pre");
    assert!(page.text("main").contains("cargo xtask db-migrate"));
    if let Some(folder) = &screenshots {
        std::fs::write(folder.join("waiting.png"), page.screenshot(true)).unwrap();
    }
}

/// The texts whose contrast with what is behind them is below 4.5 to 1 (WCAG AA).
const CONTRAST: &str = "
    const parse = c => c.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b]
        .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = e => {
        for (; e; e = e.parentElement) {
            const c = parse(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] > 0) return c;
        }
        return [255, 255, 255];
    };
    return [...document.querySelectorAll('main *, header *')]
        .filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()))
        .filter(e => e.tagName != 'title')
        .map(e => {
            const style = getComputedStyle(e);
            const color = parse(e.closest('svg') ? style.fill : style.color);
            const [a, b] = [light(color), light(behind(e))].sort((a, b) => b - a);
            return [(a + 0.05) / (b + 0.05), e.tagName, e.textContent];
        })
        .filter(([ratio]) => ratio < 4.5)
        .map(([ratio, tag, text]) => `${ratio.toFixed(2)} ${tag} ${text}`);";

/// chromedriver, until this value is dropped.
struct Driver {
    child: Child,
    address: SocketAddr,
}

impl Driver {
    fn start() -> Option<Driver> {
        let path = environment("PATH")?;
        let installed = |program: &str| {
            path.split(':')
                .any(|folder| PathBuf::from(folder).join(program).exists())
        };
        if !installed("chromedriver") || !(installed("chromium") || installed("google-chrome")) {
            return None;
        }
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = stdout.lines().map(Result::unwrap);
        let port = lines.find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        Some(Driver {
            child,
            address: ([127, 0, 0, 1], port.expect("chromedriver names its port")).into(),
        })
    }

    /// A browser of its own, in a fresh folder, with a window so large.
    fn session(&mut self, width: u32, height: u32, scheme: &str) -> Session {
        let profile = tempfile::tempdir().unwrap();
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
        ];
        let mut arguments = arguments.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let mut session = Session {
            driver: self.address,
            base: "/session".to_owned(),
            _profile: profile,
        };
        let answer = session.call("POST", "", &capabilities);
        session.base = format!("/session/{}", answer["sessionId"].as_str().unwrap());
        // The window has a least width; the page itself has none.
        session.devtools(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        );
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        session.devtools("Emulation.setEmulatedMedia", &features);
        session
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One browser with one page.
struct Session {
    driver: SocketAddr,
    base: String,
    _profile: tempfile::TempDir,
}

impl Session {
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        match self.try_call(method, path, body) {
            Ok(value) => value,
            Err(error) => panic!("{method} {path} {body}: {error}"),
        }
    }

    fn try_call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let mut connection = http::Connection::open(self.driver).unwrap();
        let path = format!("{}{path}", self.base);
        let body = match method {
            "POST" => body.to_string(),
            _ => String::new(),
        };
        let headers = "Content-Type: application/json; charset=utf-8\r\n";
        let answer = connection.send(method, &path, headers, &body).unwrap();
        let mut value: Value = serde_json::from_str(&answer.body).unwrap();
        match answer.status {
            200 => Ok(value["value"].take()),
            _ => Err(answer.body),
        }
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.call("POST", "/goog/cdp/execute", &body)
    }

    fn open(&self, url: &str) {
        self.call("POST", "/url", &json!({"url": url}));
    }

    fn back(&self) {
        self.call("POST", "/back", &json!({}));
    }

    fn url(&self) -> String {
        self.call("GET", "/url", &Value::Null)
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn script(&self, script: &str) -> Value {
        self.call(
            "POST",
            "/execute/sync",
            &json!({"script": script, "args": []}),
        )
    }

    fn element(&self, selector: &str) -> Result<String, String> {
        let body = json!({"using": "css selector", "value": selector});
        let element = self.try_call("POST", "/element", &body)?;
        let (_, id) = element.as_object().unwrap().iter().next().unwrap();
        Ok(format!("/element/{}", id.as_str().unwrap()))
    }

    fn wait_for(&self, selector: &str) {
        self.wait_until(selector, || self.element(selector).is_ok());
    }

    fn wait_for_address(&self, part: &str) {
        self.wait_until(part, || {
            self.url().contains(part) && self.script("return document.readyState") == "complete"
        });
    }

    fn wait_until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let started = Instant::now();
        while !done() {
            let text = || self.text("body");
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "no {what} in {}",
                text()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn text(&self, selector: &str) -> String {
        let element = self.element(selector).unwrap();
        let text = self.call("GET", &format!("{element}/text"), &Value::Null);
        text.as_str().unwrap().to_owned()
    }

    fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector).unwrap();
        self.call("POST", &format!("{element}/value"), &json!({"text": text}));
    }

    fn clear(&self, selector: &str) {
        let element = self.element(selector).unwrap();
        self.call("POST", &format!("{element}/clear"), &json!({}));
    }

    fn click(&self, selector: &str) {
        let element = self.element(selector).unwrap();
        self.call("POST", &format!("{element}/click"), &json!({}));
    }

    /// A key, wherever the focus is.
    fn press(&self, key: &str) {
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key},
        ]}]});
        self.call("POST", "/actions", &actions);
    }

    /// What the browser complains about: a policy that forbids something, a file that is missing.
    fn errors(&self) -> Vec<String> {
        let entries = self.call("POST", "/se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().unwrap().iter();
        entries
            .map(|entry| entry["message"].as_str().unwrap().to_owned())
            // A wrong password is answered with 401, which the browser logs.
            .filter(|message| !message.contains("status of 401"))
            .collect()
    }

    /// The page as a PNG: all of it, or what fits into the window.
    fn screenshot(&self, all: bool) -> Vec<u8> {
        let picture = self.devtools(
            "Page.captureScreenshot",
            &json!({"format": "png", "captureBeyondViewport": all}),
        );
        decode_base64(picture["data"].as_str().unwrap())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.try_call("DELETE", "", &Value::Null);
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let value = ALPHABET.iter().position(|letter| *letter == byte).unwrap();
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
