/** The one line for a fresh machine: what the node hands out, and what the script does with it. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, type TLSSocket } from 'node:tls'
import type { Server } from 'bun'
import { SystemClock } from '../src/base/clock.ts'
import { Observer } from '../src/base/observe.ts'
import { SystemRandom } from '../src/base/random.ts'
import { type Certificate, openCertificate } from '../src/config/certificate.ts'
import { scriptFor } from '../web/pages/join.ts'
import { createWeb } from '../web/server.ts'
import { FakeAdmin } from './web-fake.ts'

const clock = new SystemClock()
const random = new SystemRandom()
const observer = new Observer(clock, () => {})
const place = mkdtempSync(join(tmpdir(), 'postern-install-'))
const FACTS = {
  url: 'https://192.0.2.1:8443',
  pin: 'sha256//AbC+/=',
  sum: 'ab'.repeat(32),
  machine: 'x86_64',
}

/** What the tests call postern: as much of it as the script needs, and it writes down the rest. */
const FAKE = `#!/bin/sh
if [ "$1" = --data ]; then D=$2; shift 2; fi
node() { printf '    { "id": "%s", "lagMs": 0 }' "$1"; }
say() {
  { printf '{\\n  "ready": true,\\n  "web": "https://192.0.2.9:8443",\\n  "nodes": [\\n'
    node a; [ $1 = 1 ] || { printf ',\\n'; node b; }; printf '\\n  ]\\n}\\n'; } >"$D/status"
}
case $1 in
  version) echo 'postern fake' ;;
  status) kill -0 "$(cat "$D/pid" 2>/dev/null)" 2>/dev/null || exit 1; cat "$D/status" ;;
  join) read -r token; echo "$token" >"$D/joined"; say 2 ;;
  serve)
    D=$3; mkdir -p "$D"; echo "$*" >"$D/args"; echo "\${POSTERN_SMTP:-} \${POSTERN_JOIN:-}" >"$D/env"
    case \${POSTERN_JOIN:-} in
      *refused*) echo 'postern: The token has expired. Make a new one.' >&2; exit 1 ;;
      '') echo abcd-efgh >"$D/setup-code"; say 1 ;;
      *) say 2 ;;
    esac
    echo $$ >"$D/pid"; echo started >>"$D/starts"
    trap 'exit 0' TERM; while :; do sleep 0.2; done ;;
esac
`

let certificate: Certificate
const binary = join(place, 'fake')
const servers: Server<undefined>[] = []

beforeAll(async () => {
  const directory = join(place, 'web')
  mkdirSync(directory)
  certificate = await openCertificate(directory, ['127.0.0.1'], { clock, random })
  writeFileSync(binary, FAKE)
})

afterAll(async () => {
  for (const server of servers) await server.stop(true)
  for (const name of readdirSync(place)) {
    const pid = join(place, name, 'data', 'pid')
    if (existsSync(pid)) process.kill(Number(readFileSync(pid, 'utf8')))
  }
  rmSync(place, { recursive: true, force: true })
})

/** A node of which only the web is real, over https with a key that nobody has signed. */
function node(program: string | null = binary): {
  readonly url: string
  readonly requests: string[]
} {
  const admin = new FakeAdmin({ clock, mails: [], setup: true, ready: true, nodes: ['mx1'] })
  const status = admin.status.bind(admin)
  admin.status = () => ({ ...status(), webPin: certificate.pin })
  const web = createWeb({
    admin,
    clock,
    random,
    observer,
    secure: true,
    nodeName: 'mx1',
    ...(program === null ? {} : { program }),
  })
  const requests: string[] = []
  const server = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    tls: { key: certificate.key, cert: certificate.cert },
    fetch: (request) => {
      requests.push(new URL(request.url).pathname)
      return web.handle(request, { ip: '127.0.0.1', trusted: false })
    },
  })
  servers.push(server)
  return { url: `https://127.0.0.1:${server.port}`, requests }
}

/** A request whose answer has begun, and is not read any further. */
async function begun(url: string): Promise<TLSSocket> {
  const { hostname, port, pathname } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port), rejectUnauthorized: false })
  await new Promise((resolve, reject) => socket.on('secureConnect', resolve).on('error', reject))
  socket.write(`GET ${pathname} HTTP/1.1\r\nHost: ${hostname}\r\n\r\n`)
  await new Promise<void>((resolve) =>
    socket.once('data', () => {
      socket.pause()
      resolve()
    }),
  )
  return socket
}

function fetched(url: string, method = 'GET'): Promise<Response> {
  return fetch(url, { method, tls: { rejectUnauthorized: false } })
}

describe('a node hands out', () => {
  test('the script, to anybody, with its own address, key and program in it', async () => {
    const { url } = node()
    const answer = await fetched(`${url}/join`)
    expect(answer.status).toBe(200)
    const script = await answer.text()
    expect(script).toStartWith('#!/bin/sh\n')
    expect(script).toContain(`URL='${url}'`)
    expect(script).toContain(`PIN='${certificate.pin}'`)
    const sum = new Bun.CryptoHasher('sha256').update(FAKE).digest('hex')
    expect(script).toContain(`SUM='${sum}'`)
    expect(script).not.toMatch(/@[A-Z]+@/)
  })

  test('its own program, whole', async () => {
    const { url } = node()
    const answer = await fetched(`${url}/join/postern`)
    expect(answer.headers.get('content-type')).toBe('application/octet-stream')
    expect(await answer.text()).toBe(FAKE)
    for (let round = 0; round < 20; round += 1) {
      expect((await fetched(`${url}/join/postern`, 'HEAD')).status).toBe(200)
    }
    expect((await fetched(`${url}/join/postern`)).status).toBe(200)
  })

  test('the sum of a program that was replaced since', async () => {
    const path = join(place, 'replaced')
    writeFileSync(path, 'one')
    const { url } = node(path)
    const sumIn = async () => /SUM='(\w+)'/.exec(await (await fetched(`${url}/join`)).text())?.[1]
    const first = await sumIn()
    writeFileSync(path, 'another')
    expect(await sumIn()).not.toBe(first)
    expect(await sumIn()).toBe(new Bun.CryptoHasher('sha256').update('another').digest('hex'))
  })

  test('no program when it runs from source, and says so', async () => {
    const { url } = node(null)
    const answer = await fetched(`${url}/join/postern`)
    expect(answer.status).toBe(404)
    expect(await answer.text()).toContain('runs from source')
    expect(await (await fetched(`${url}/join`)).text()).toContain("SUM=''")
  })

  test('few copies at a time', async () => {
    const large = join(place, 'large')
    writeFileSync(large, '')
    truncateSync(large, 64 * 1024 * 1024)
    const { url } = node(large)
    // Nobody reads on: they stay on their way.
    const slow = await Promise.all(Array.from({ length: 8 }, () => begun(`${url}/join/postern`)))
    expect((await fetched(`${url}/join/postern`)).status).toBe(503)
    for (const socket of slow) socket.destroy()
    writeFileSync(large, 'short')
    let status = 503
    for (let tries = 0; tries < 1_000 && status === 503; tries += 1) {
      const answer = await fetched(`${url}/join/postern`)
      status = answer.status
      await answer.bytes()
    }
    expect(status).toBe(200)
  })

  test('nothing that a shell would take for more than text', () => {
    expect(scriptFor(FACTS)).toContain("URL='https://192.0.2.1:8443'")
    expect(scriptFor({ ...FACTS, url: 'https://[2001:db8::1]:8443' })).toContain('[2001:db8::1]')
    for (const url of [
      "https://a'$(id)",
      'https://a b',
      'https://a\n',
      'https://a`id`',
      'https://$x',
    ]) {
      expect(() => scriptFor({ ...FACTS, url })).toThrow('characters that do not belong')
    }
  })
})

type Ran = { readonly code: number; readonly out: string }

/** Runs the script as `curl … | sh -s -- TOKEN` does, for a machine of its own. */
async function installed(
  url: string,
  name: string,
  token: string | null,
  more: { readonly shell?: readonly string[]; readonly script?: string } = {},
): Promise<Ran & { readonly home: string; readonly data: (file: string) => string | null }> {
  const script = more.script ?? (await (await fetched(`${url}/join`)).text())
  const home = join(place, name)
  mkdirSync(home, { recursive: true })
  const run = Bun.spawn(
    [...(more.shell ?? ['sh']), '-s', '--', ...(token === null ? [] : [token])],
    {
      stdin: new Blob([script]),
      stdout: 'pipe',
      stderr: 'pipe',
      env: {
        PATH: process.env['PATH'] ?? '',
        HOME: home,
        POSTERN_BIN: join(home, 'bin', 'postern'),
        POSTERN_DATA: join(home, 'data'),
        POSTERN_SMTP: '127.0.0.1:2525',
      },
    },
  )
  const [out, err] = await Promise.all([
    new Response(run.stdout).text(),
    new Response(run.stderr).text(),
  ])
  return {
    code: await run.exited,
    out: out + err,
    home,
    data: (file) => {
      const path = join(home, 'data', file)
      return existsSync(path) ? readFileSync(path, 'utf8') : null
    },
  }
}

const SHELLS = [['dash'], ['busybox', 'sh'], ['bash', '--posix']].filter(
  ([shell]) => Bun.which(shell ?? '') !== null,
)

describe('the script', () => {
  for (const shell of SHELLS) {
    test(`is one that ${shell[0]} reads, and installs with it`, async () => {
      const [program = '', ...words] = shell
      const read = Bun.spawnSync([program, ...words, '-n'], {
        stdin: Buffer.from(scriptFor(FACTS)),
      })
      expect(read.stderr.toString()).toBe('')
      const { code, out } = await installed(node().url, `with-${program}`, null, { shell })
      expect(out).toContain('takes mail')
      expect(code).toBe(0)
    }, 30_000)
  }

  test('without a token makes a first node, and says where to set it up', async () => {
    const { code, out, data, home } = await installed(node().url, 'first', null)
    expect(code).toBe(0)
    expect(out).toContain('https://192.0.2.9:8443/setup?code=abcd-efgh')
    expect(out).toContain('ends with the machine')
    expect(data('env')).toBe('127.0.0.1:2525 \n')
    expect(statSync(join(home, 'data')).mode & 0o777).toBe(0o700)
    expect(statSync(join(home, 'bin', 'postern')).mode & 0o111).not.toBe(0)
    expect(readdirSync(join(home, 'bin'))).toEqual(['postern'])
  }, 30_000)

  test('with a token joins, and shows it to nobody', async () => {
    const { url } = node()
    const first = await installed(url, 'second', 'pj1_token')
    expect(first.out).toContain('a node of the cluster')
    expect(first.code).toBe(0)
    expect(first.data('env')).toContain('pj1_token')
    expect(first.data('args')).not.toContain('pj1_token')
    // Nothing of it stays on the disk but what the fake wrote down.
    const left = readdirSync(join(first.home, 'data')).filter(
      (name) => name !== 'env' && (first.data(name) ?? '').includes('pj1_token'),
    )
    expect(left).toEqual([])

    const again = await installed(url, 'second', 'pj1_token')
    expect(again.code).toBe(0)
    expect(again.out).toContain('is not joined again')
    expect(again.data('starts')).toBe('started\n')
    expect(again.data('joined')).toBeNull()
  }, 30_000)

  test('run again changes nothing, and joins a node that runs alone when there is a token', async () => {
    const { url, requests } = node()
    await installed(url, 'third', null)
    const copies = () => requests.filter((path) => path === '/join/postern').length
    const path = join(place, 'third', 'bin', 'postern')
    const before = statSync(path)
    const again = await installed(url, 'third', null)
    expect(again.code).toBe(0)
    expect(statSync(path).ino).toBe(before.ino)
    expect(copies()).toBe(1)
    const joined = await installed(url, 'third', 'pj1_later')
    expect(joined.code).toBe(0)
    expect(joined.data('joined')).toBe('pj1_later\n')
    expect(joined.data('starts')).toBe('started\n')
  }, 30_000)

  test('shows why a token was refused, and ends with 1', async () => {
    const { code, out } = await installed(node().url, 'refused', 'pj1_refused')
    expect(code).toBe(1)
    expect(out).toContain('The token has expired. Make a new one.')
  }, 30_000)

  test('takes no word for a token that is none', async () => {
    const { code, out } = await installed(node().url, 'word', 'K10abc')
    expect(code).toBe(1)
    expect(out).toContain('begin with pj1_')
    expect(existsSync(join(place, 'word', 'bin'))).toBe(false)
  }, 30_000)

  test('keeps nothing of a program that is not the announced one', async () => {
    const path = join(place, 'swapped')
    writeFileSync(path, FAKE)
    const { url } = node(path)
    const script = await (await fetched(`${url}/join`)).text()
    writeFileSync(path, `${FAKE}# and more\n`)
    const { code, out } = await installed(url, 'swapped-at', null, { script })
    expect(code).toBe(1)
    expect(out).toContain('is not the program that it announced')
    expect(readdirSync(join(place, 'swapped-at', 'bin'))).toEqual([])
  }, 30_000)

  test('takes nothing from who has another key (a man in the middle)', async () => {
    const { url, requests } = node()
    const script = (await (await fetched(`${url}/join`)).text()).replace(
      certificate.pin,
      `sha256//${Buffer.alloc(32, 7).toString('base64')}`,
    )
    requests.length = 0
    const { code, out } = await installed(url, 'middle', 'pj1_token', { script })
    expect(code).toBe(1)
    expect(out).toContain('could not be fetched')
    expect(requests).toEqual([])
    expect(existsSync(join(place, 'middle', 'data'))).toBe(false)
  }, 30_000)

  test('stops on a machine that the program is not for, before it writes anything', async () => {
    const { url } = node()
    const script = (await (await fetched(`${url}/join`)).text()).replace(
      /MACHINE='\w+'/,
      "MACHINE='vax'",
    )
    const { code, out } = await installed(url, 'vax', null, { script })
    expect(code).toBe(1)
    expect(out).toContain('for Linux on vax')
    expect(readdirSync(join(place, 'vax'))).toEqual([])
  }, 30_000)

  test('says what to do when the node has no program to give', async () => {
    const { url } = node(null)
    const { code, out } = await installed(url, 'source', null)
    expect(code).toBe(1)
    expect(out).toContain('POSTERN_BIN')
    const home = join(place, 'has-one', 'bin')
    mkdirSync(home, { recursive: true })
    writeFileSync(join(home, 'postern'), FAKE)
    chmodSync(join(home, 'postern'), 0o755)
    expect((await installed(url, 'has-one', null)).code).toBe(0)
  }, 30_000)

  test('that was cut off on its way does nothing', async () => {
    const { url, requests } = node()
    const script = await (await fetched(`${url}/join`)).text()
    requests.length = 0
    for (let part = 1; part < 40; part += 1) {
      const cut = script.slice(0, Math.floor((script.length - 12) * (part / 40)))
      await installed(url, 'cut', 'pj1_token', { script: cut })
    }
    expect(readdirSync(join(place, 'cut'))).toEqual([])
    expect(requests).toEqual([])
  }, 30_000)
})
