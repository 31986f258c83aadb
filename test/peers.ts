/** Real mail servers as next hops of a test: smtp-sink, Postfix with TLS, Dovecot over LMTP. */
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../src/base/clock.ts'
import { freePort } from './ports.ts'

const clock = new SystemClock()

export type Peer = { readonly port: number; readonly stop: () => Promise<void> }

/** Waits until the port takes a connection. @throws with what `log` gives after 20 s */
async function listens(port: number, log: () => string): Promise<void> {
  for (let tries = 0; tries < 400; tries++) {
    try {
      const socket = await Bun.connect({ hostname: '127.0.0.1', port, socket: { data() {} } })
      socket.end()
      return
    } catch {
      await pause(clock, 50)
    }
  }
  throw new Error(`nothing listens on ${port}: ${log()}`)
}

/** smtp-sink of Postfix with `options`, e.g. `-f`, `RCPT` for a 5xx to each recipient. */
export async function startSmtpSink(...options: readonly string[]): Promise<Peer> {
  const port = freePort()
  const user = process.getuid?.() === 0 ? ['-u', 'nobody'] : []
  const command = ['/usr/sbin/smtp-sink', ...user, ...options, `127.0.0.1:${port}`, '100']
  const child = Bun.spawn(command, { stdout: 'ignore', stderr: 'pipe' })
  await listens(port, () => command.join(' '))
  const stop = async (): Promise<void> => {
    child.kill()
    await child.exited
  }
  return { port, stop }
}

async function makeCertificate(
  folder: string,
): Promise<{ readonly key: string; readonly cert: string }> {
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
  await Bun.$`openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ${key} -out ${cert} -days 2 -subj /CN=behind.example`.quiet()
  return { key, cert }
}

function settingsText(settings: Readonly<Record<string, string | number>>): string {
  return Object.entries(settings)
    .map(([key, value]) => `${key} = ${value}\n`)
    .join('')
}

/**
 * The SMTP server of Postfix with STARTTLS. It hands each message on to `filterPort` before it
 * answers, so its answers are those of the filter. Needs root.
 */
export async function startPostfixServer(filterPort: number): Promise<Peer> {
  const port = freePort()
  const root = mkdtempSync(join(tmpdir(), 'postern-peer-'))
  chmodSync(root, 0o755)
  for (const name of ['etc', 'spool', 'data']) mkdirSync(join(root, name), { mode: 0o755 })
  const uid = Number((await Bun.$`id -u postfix`.text()).trim())
  chownSync(join(root, 'data'), uid, -1)
  const { key, cert } = await makeCertificate(join(root, 'etc'))
  const log = join(root, 'mail.log')
  const main = settingsText({
    compatibility_level: '3.6',
    queue_directory: join(root, 'spool'),
    data_directory: join(root, 'data'),
    maillog_file: log,
    maillog_file_prefixes: root,
    inet_interfaces: '127.0.0.1',
    inet_protocols: 'ipv4',
    myhostname: 'behind.example',
    mydestination: '',
    alias_maps: '',
    alias_database: '',
    mynetworks: '127.0.0.0/8',
    disable_dns_lookups: 'yes',
    smtpd_peername_lookup: 'no',
    smtpd_relay_restrictions: 'permit_mynetworks, reject',
    smtpd_recipient_restrictions: `check_recipient_access regexp:${join(root, 'etc/rcpt')}, permit_mynetworks, reject`,
    smtpd_tls_security_level: 'may',
    smtpd_tls_key_file: key,
    smtpd_tls_cert_file: cert,
    smtpd_proxy_filter: `127.0.0.1:${filterPort}`,
  })
  writeFileSync(
    join(root, 'etc/rcpt'),
    '/^no-such/ 550 5.1.1 no such user\n/^later/ 450 4.2.1 busy\n',
  )
  writeFileSync(join(root, 'etc/main.cf'), main)
  const services = [
    `127.0.0.1:${port} inet n - n - - smtpd`,
    'cleanup unix n - n - 0 cleanup',
    'rewrite unix - - n - - trivial-rewrite',
    'proxymap unix - - n - - proxymap',
    'anvil unix - - n - 1 anvil',
    'tlsmgr unix - - n 1000? 1 tlsmgr',
    'postlog unix-dgram n - n - 1 postlogd',
  ]
  writeFileSync(join(root, 'etc/master.cf'), `${services.join('\n')}\n`)
  const postfix = (word: string) =>
    Bun.$`/usr/sbin/postfix -c ${join(root, 'etc')} ${word}`.quiet().nothrow()
  const { exitCode, stderr } = await postfix('start')
  if (exitCode !== 0) throw new Error(`postfix start: ${stderr.toString()}`)
  await listens(port, () => readFileSync(log, 'utf8'))
  const stop = async (): Promise<void> => {
    await postfix('stop')
    rmSync(root, { recursive: true, force: true })
  }
  return { port, stop }
}

export type Dovecot = Peer & { readonly imapPort: number }

/**
 * Dovecot with LMTP and IMAP on loopback: any user but `no-such-…` exists, with the password
 * `secret`. Mailboxes take 300 kB. Needs root.
 */
export async function startDovecot(): Promise<Dovecot> {
  const [port, imapPort] = [freePort(), freePort()]
  const root = mkdtempSync(join(tmpdir(), 'postern-dovecot-'))
  chmodSync(root, 0o755)
  mkdirSync(join(root, 'mail'))
  chownSync(join(root, 'mail'), 65_534, 65_534)
  const users = ['one', 'two', 'three']
    .map((name) => `${name}@there.example:{PLAIN}secret:65534:65534::${root}/mail/${name}::\n`)
    .join('')
  writeFileSync(join(root, 'users'), users)
  chmodSync(join(root, 'users'), 0o644)
  writeFileSync(
    join(root, 'dovecot.conf'),
    `base_dir = ${root}/run
state_dir = ${root}/state
log_path = ${root}/dovecot.log
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
mail_location = maildir:~/Maildir
first_valid_uid = 1
default_internal_user = dovecot
default_login_user = dovenull
mail_plugins = quota
plugin {
  quota = maildir:User quota
  quota_rule = *:storage=300K
}
passdb {
  driver = passwd-file
  args = ${root}/users
}
userdb {
  driver = passwd-file
  args = ${root}/users
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = ${port}
  }
}
service imap-login {
  inet_listener imap {
    address = 127.0.0.1
    port = ${imapPort}
  }
  inet_listener imaps {
    port = 0
  }
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
`,
  )
  const config = join(root, 'dovecot.conf')
  // The daemon keeps its standard output open: a pipe would never end.
  const starter = Bun.spawn(['/usr/sbin/dovecot', '-c', config], {
    stdio: ['ignore', 'ignore', 'ignore'],
  })
  await starter.exited
  await listens(port, () => readFileSync(join(root, 'dovecot.log'), 'utf8'))
  await listens(imapPort, () => readFileSync(join(root, 'dovecot.log'), 'utf8'))
  const stop = async (): Promise<void> => {
    await Bun.$`/usr/sbin/dovecot -c ${config} stop`.quiet().nothrow()
    rmSync(root, { recursive: true, force: true })
  }
  return { port, imapPort, stop }
}

/** All messages in the INBOX of `user`, as IMAP gives them. */
export async function readInbox(imapPort: number, user: string): Promise<string[]> {
  let received = Buffer.alloc(0)
  let wake: (() => void) | null = null
  const socket = await Bun.connect({
    hostname: '127.0.0.1',
    port: imapPort,
    socket: {
      data(_socket, chunk) {
        received = Buffer.concat([received, chunk])
        wake?.()
      },
    },
  })
  const ask = async (tag: string, command: string): Promise<Buffer> => {
    received = Buffer.alloc(0)
    socket.write(`${tag} ${command}\r\n`)
    while (!new RegExp(`(^|\r\n)${tag} (OK|NO|BAD).*\r\n`).test(received.toString('latin1'))) {
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
    return received
  }
  await ask('a1', `LOGIN ${user} secret`)
  await ask('a2', 'SELECT INBOX')
  const answer = await ask('a3', 'FETCH 1:* BODY.PEEK[]')
  socket.end()
  const messages: string[] = []
  for (let at = 0; ; ) {
    const literal = answer.indexOf('BODY[] {', at)
    if (literal < 0) return messages
    const start = answer.indexOf('\r\n', literal) + 2
    const length = Number.parseInt(answer.toString('latin1', literal + 8, start), 10)
    messages.push(answer.toString('latin1', start, start + length))
    at = start + length
  }
}
