/** SpamAssassin beside us: spamd without the network, taught by sa-learn (Debian spamd, spamassassin). */
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { eachAtATime, type Peer, portOpen } from './peers.ts'
import type { Labelled } from './set.ts'

const PORT = 27_831
/** Everything that leaves a trace or asks somebody is off; the rules are those of the package. */
const CONFIG = (directory: string): string => `
required_score 5
use_bayes 1
bayes_auto_learn 0
bayes_path ${directory}/bayes/bayes
bayes_file_mode 0777
use_auto_whitelist 0
dns_available no
skip_rbl_checks 1
skip_uribl_checks 1
use_dcc 0
use_pyzor 0
use_razor2 0
report_safe 0
time_limit 120
`

export async function spamAssassin(directory: string, train: readonly Labelled[]): Promise<Peer> {
  const site = join(directory, 'site')
  mkdirSync(join(directory, 'bayes'), { recursive: true })
  chmodSync(join(directory, 'bayes'), 0o777)
  mkdirSync(site)
  // The plug-ins of the package; local.cf is ours.
  for (const name of new Bun.Glob('*.pre').scanSync('/etc/spamassassin')) {
    symlinkSync(join('/etc/spamassassin', name), join(site, name))
  }
  writeFileSync(join(site, 'local.cf'), CONFIG(directory))
  for (const label of ['spam', 'ham'] as const) {
    const mails = train.filter(({ isSpam }) => isSpam === (label === 'spam'))
    if (mails.length === 0) continue
    const folder = join(directory, label)
    mkdirSync(folder)
    for (const { path, raw } of mails) writeFileSync(join(folder, path.replace('/', '-')), raw)
    await Bun.$`sa-learn --siteconfigpath=${site} --local --${label} ${folder}`.quiet()
  }
  if (train.length > 0) await Bun.$`chmod -R a+rw ${join(directory, 'bayes')}`.quiet()
  const child = Bun.spawn(
    [
      'spamd',
      '--local',
      '--max-children=2',
      '--min-children=2',
      `--siteconfigpath=${site}`,
      '--listen=127.0.0.1',
      `--port=${PORT}`,
      '--username=nobody',
      '--syslog=null',
      '--timeout-child=240',
    ],
    { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' },
  )
  await portOpen(PORT)
  return {
    name: 'SpamAssassin',
    version: (await Bun.$`spamassassin --version`.quiet().text()).split('\n')[0] ?? '',
    judge: (mails) => eachAtATime(2, mails, async ({ raw }) => scoreOf(await ask(raw))),
    stop: async () => {
      child.kill()
      await child.exited
    },
  }
}

/** One request of the SPAMC protocol. */
function ask(raw: Uint8Array): Promise<string> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = []
    const socket = connect({ host: '127.0.0.1', port: PORT }, () => {
      socket.write(`SYMBOLS SPAMC/1.5\r\nContent-length: ${raw.length}\r\n\r\n`)
      socket.write(raw)
    })
    socket.on('data', (piece) => pieces.push(Buffer.from(piece)))
    socket.once('end', () => {
      socket.destroy()
      resolve(Buffer.concat(pieces).toString('latin1'))
    })
    socket.once('error', reject)
  })
}

function scoreOf(answer: string): { readonly score: number; readonly rules: readonly string[] } {
  const score = /^Spam: \w+ ; (-?[\d.]+) \//m.exec(answer)?.[1]
  // A mail that it does not end with in its time passes as it is.
  if (/^SPAMD\/[\d.]+ 79 /.test(answer)) return { score: 0, rules: ['TIMEOUT'] }
  if (score === undefined) throw new Error(`spamd answered ${JSON.stringify(answer.slice(0, 200))}`)
  const rules = answer.slice(answer.indexOf('\r\n\r\n') + 4).trim()
  return { score: Number(score), rules: rules === '' ? [] : rules.split(',') }
}
