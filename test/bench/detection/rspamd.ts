/** Rspamd beside us: stock rules without the network, taught over its controller (Debian rspamd, redis-server). */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { eachAtATime, type Peer, portOpen } from './peers.ts'
import type { Labelled } from './set.ts'

const SCANNER = 27_841
const CONTROLLER = 27_842
const REDIS = 27_851
/** What asks the network or a history of its own, which no other peer has here. */
const OFF = [
  'rbl',
  'surbl',
  'spf',
  'dkim',
  'dmarc',
  'arc',
  'asn',
  'bimi',
  'mx_check',
  'url_redirector',
  'fuzzy_check',
  'rspamd_update',
  'phishing',
  'ratelimit',
  'greylist',
  'replies',
  'neural',
  'reputation',
  'known_senders',
  'history_redis',
  'dkim_signing',
  'whitelist',
  'dcc',
  'clickhouse',
  'elastic',
]

export async function rspamd(directory: string, train: readonly Labelled[]): Promise<Peer> {
  const local = join(directory, 'etc')
  for (const each of ['db', 'run', 'log', 'etc/local.d', 'etc/override.d', 'etc/maps.d', 'redis']) {
    mkdirSync(join(directory, each), { recursive: true })
  }
  const put = (path: string, text: string): void => writeFileSync(join(local, path), text)
  for (const name of OFF) put(`override.d/${name}.conf`, 'enabled = false;\n')
  put(
    'local.d/options.inc',
    `dns { nameserver = ["127.77.0.1"]; timeout = 0.1s; retransmits = 1; }\ncontrol_socket = "${directory}/run/control.sock mode=0600";\n`,
  )
  put('local.d/logging.inc', 'level = error;\n')
  put('local.d/redis.conf', `servers = "127.0.0.1:${REDIS}";\n`)
  put('local.d/classifier-bayes.conf', 'backend = "redis";\n')
  put('override.d/worker-normal.inc', `bind_socket = "127.0.0.1:${SCANNER}";\ncount = 2;\n`)
  put(
    'override.d/worker-controller.inc',
    `bind_socket = "127.0.0.1:${CONTROLLER}";\nsecure_ip = "127.0.0.1";\n`,
  )
  put('override.d/worker-proxy.inc', 'enabled = false;\nbind_socket = "127.0.0.1:27843";\n')
  await Bun.$`chown -R _rspamd ${directory}`.quiet()
  const quiet = { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' } as const
  const redis = Bun.spawn(
    [
      'redis-server',
      '--port',
      String(REDIS),
      '--bind',
      '127.0.0.1',
      '--save',
      '',
      '--appendonly',
      'no',
      '--dir',
      join(directory, 'redis'),
    ],
    quiet,
  )
  await portOpen(REDIS)
  const child = Bun.spawn(
    [
      'rspamd',
      '-f',
      '-u',
      '_rspamd',
      '-g',
      '_rspamd',
      '-c',
      '/etc/rspamd/rspamd.conf',
      `--var=DBDIR=${directory}/db`,
      `--var=RUNDIR=${directory}/run`,
      `--var=LOGDIR=${directory}/log`,
      `--var=LOCAL_CONFDIR=${local}`,
    ],
    quiet,
  )
  await portOpen(SCANNER)
  await portOpen(CONTROLLER)
  let refused = 0
  await eachAtATime(2, train, async ({ raw, isSpam }) => {
    const answer = await fetch(`http://127.0.0.1:${CONTROLLER}/learn${isSpam ? 'spam' : 'ham'}`, {
      method: 'POST',
      body: new Uint8Array(raw),
    })
    await answer.text()
    // 208: it knows one that is the same to it; 204 and 404: too few words.
    if (answer.status >= 300 || answer.status === 204) refused += 1
  })
  const version = (await Bun.$`rspamd --version`.quiet().text()).trim()
  return {
    name: 'Rspamd',
    version: refused === 0 ? version : `${version}, which did not learn ${refused} mails`,
    judge: (mails) =>
      eachAtATime(2, mails, async ({ raw }) => {
        const answer = await fetch(`http://127.0.0.1:${SCANNER}/checkv2`, {
          method: 'POST',
          body: new Uint8Array(raw),
        })
        const said = (await answer.json()) as { score: number; symbols: Record<string, unknown> }
        return { score: said.score, rules: Object.keys(said.symbols ?? {}) }
      }),
    stop: async () => {
      child.kill()
      await child.exited
      redis.kill()
      await redis.exited
    },
  }
}
