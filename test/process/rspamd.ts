/** An Rspamd of the test's own: stock rules, own directories, and nothing that asks the network. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { freePort } from '../ports.ts'

/** What asks name servers, Redis or others, and what judges a client that is loopback here. */
const OFF = [
  ...['rbl', 'surbl', 'spf', 'dkim', 'dmarc', 'arc', 'asn', 'bimi', 'mx_check', 'url_redirector'],
  ...['fuzzy_check', 'rspamd_update', 'phishing', 'ratelimit', 'greylist', 'replies', 'neural'],
  ...['reputation', 'known_senders', 'history_redis', 'dkim_signing', 'whitelist', 'mid'],
  ...['once_received', 'hfilter', 'dcc', 'clickhouse', 'elastic'],
]

export type RspamdPorts = {
  readonly scanner: number
  /** Where mail servers ask as a milter; null: nowhere. */
  readonly milter: number | null
  /** Of a clamd that gets every mail whole; null: none. */
  readonly clamd: number | null
}

/** Writes its settings below `directory` and gives its command line. Needs root: it runs as `_rspamd`. */
export async function rspamdCommand(
  directory: string,
  { scanner, milter, clamd }: RspamdPorts,
): Promise<readonly string[]> {
  const write = (name: string, lines: readonly string[]): void => {
    const path = join(directory, 'etc', name)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, `${lines.join('\n')}\n`)
  }
  for (const name of ['db', 'run', 'logs', 'etc/maps.d'])
    mkdirSync(join(directory, name), { recursive: true })
  for (const module of OFF) write(`override.d/${module}.conf`, ['enabled = false;'])
  write('local.d/options.inc', [
    'dns { nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 1; }',
    `control_socket = "${join(directory, 'run/control.sock')} mode=0600";`,
  ])
  write('local.d/logging.inc', ['level = error;', 'type = "console";'])
  write('override.d/worker-normal.inc', [`bind_socket = "127.0.0.1:${scanner}";`, 'count = 1;'])
  write('override.d/worker-controller.inc', [`bind_socket = "127.0.0.1:${freePort()}";`])
  if (clamd !== null) {
    write('local.d/antivirus.conf', [
      'clamav {',
      '  type = "clamav"; symbol = "CLAM_VIRUS"; action = "reject";',
      `  servers = "127.0.0.1:${clamd}"; scan_mime_parts = false;`,
      '}',
    ])
  }
  write('override.d/worker-fuzzy.inc', ['enabled = false;'])
  write(
    'override.d/worker-proxy.inc',
    milter === null
      ? ['enabled = false;']
      : [
          `bind_socket = "127.0.0.1:${milter}";`,
          'milter = yes;',
          `upstream "local" { default = yes; hosts = "127.0.0.1:${scanner}"; }`,
        ],
  )
  await Bun.$`chown -R _rspamd ${directory}`.quiet()
  return [
    ...['/usr/bin/rspamd', '-f', '-u', '_rspamd', '-g', '_rspamd'],
    ...['-c', '/etc/rspamd/rspamd.conf'],
    `--var=DBDIR=${join(directory, 'db')}`,
    `--var=RUNDIR=${join(directory, 'run')}`,
    `--var=LOGDIR=${join(directory, 'logs')}`,
    `--var=LOCAL_CONFDIR=${join(directory, 'etc')}`,
  ]
}
