/** A Postfix of the test's own: stock settings, loopback only, own directories, relays to a sink. */
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { freePort } from '../ports.ts'
import { Wire } from './wire.ts'

const clock = new SystemClock()

const SERVICES = `pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

export type Postfix = { readonly port: number; readonly stop: () => Promise<void> }

/** Starts it (needs root and the package) and waits until it greets. @throws with its log */
export async function startPostfix(sinkPort: number): Promise<Postfix> {
  const port = freePort()
  const root = mkdtempSync(join(tmpdir(), 'postern-proof-postfix-'))
  chmodSync(root, 0o755)
  for (const name of ['etc', 'spool', 'data', 'log']) mkdirSync(join(root, name), { mode: 0o755 })
  const uid = Number((await Bun.$`id -u postfix`.text()).trim())
  chownSync(join(root, 'data'), uid, -1)
  const settings = {
    compatibility_level: '3.6',
    queue_directory: join(root, 'spool'),
    data_directory: join(root, 'data'),
    maillog_file: join(root, 'log/mail.log'),
    maillog_file_prefixes: root,
    inet_interfaces: '127.0.0.1',
    inet_protocols: 'ipv4',
    myhostname: 'behind.example',
    mydestination: '',
    local_recipient_maps: '',
    alias_maps: '',
    alias_database: '',
    mynetworks: '127.0.0.0/8',
    smtpd_relay_restrictions: 'permit_mynetworks, reject',
    relayhost: `[127.0.0.1]:${sinkPort}`,
    disable_dns_lookups: 'yes',
    local_header_rewrite_clients: '',
    smtpd_peername_lookup: 'no',
    biff: 'no',
  }
  const lines = Object.entries(settings).map(([key, value]) => `${key} = ${value}\n`)
  writeFileSync(join(root, 'etc/main.cf'), lines.join(''))
  writeFileSync(join(root, 'etc/master.cf'), `127.0.0.1:${port} inet n - n - - smtpd\n${SERVICES}`)
  const postfix = (word: string) =>
    Bun.$`/usr/sbin/postfix -c ${join(root, 'etc')} ${word}`.quiet().nothrow()
  const { exitCode, stderr } = await postfix('start')
  if (exitCode !== 0) throw new Error(`postfix start: ${stderr.toString()}`)
  const stop = async () => {
    await postfix('stop')
    rmSync(root, { recursive: true, force: true })
  }
  for (let tries = 0; tries < 200; tries += 1) {
    try {
      const wire = await Wire.connect({ port })
      await wire.reply(2_000)
      wire.drop()
      return { port, stop }
    } catch {
      await pause(clock, 50)
    }
  }
  await stop()
  throw new Error('postfix does not greet')
}
