/** STARTTLS as other implementations speak it: versions, slow handshakes, floods (rows B07, B08). */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import net from 'node:net'
import tls from 'node:tls'
import { SystemClock } from '../../src/base/clock.ts'
import { COUNTS } from '../process/counts.ts'
import { Postern } from '../process/postern.ts'
import { descriptorsOf } from '../process/proc.ts'
import { Sink } from '../process/sink.ts'
import { Wire } from '../process/wire.ts'
import { needs } from '../real.ts'

const clock = new SystemClock()
const sink = new Sink({ keep: true })
let node: Postern
beforeAll(async () => {
  node = await Postern.start()
  await node.addDomain('example.com', sink.nextHop)
}, 60_000)
afterAll(async () => {
  await node?.dispose()
  sink.stop()
})

/** What openssl says when it tries STARTTLS; `input` goes through the session, if there is one. */
async function openssl(input: string, ...options: string[]): Promise<string> {
  const child = Bun.spawn(
    [
      '/usr/bin/openssl',
      's_client',
      '-connect',
      `127.0.0.1:${node.smtpPort}`,
      '-starttls',
      'smtp',
      '-crlf',
      ...options,
    ],
    { stdin: 'pipe', stdout: 'pipe', stderr: 'pipe', timeout: 15_000, killSignal: 'SIGKILL' },
  )
  child.stdin.write(input)
  // Without -quiet it would end the session at the end of its input, before the answers.
  await child.stdin.flush()
  const [out, err] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  child.stdin.end()
  await child.exited
  return `${out}\n${err}`
}

needs('openssl')('openssl', () => {
  for (const [option, version] of [
    ['-tls1_2', 'TLSv1.2'],
    ['-tls1_3', 'TLSv1.3'],
  ] as const) {
    test(`${version} is spoken`, async () => {
      const said = await openssl('quit\n', option)
      expect(said).toContain(version)
      expect(said).toMatch(/^221 /m)
    }, 30_000)
  }

  for (const [option, version] of [
    ['-tls1', '1.0'],
    ['-tls1_1', '1.1'],
  ] as const) {
    test(`TLS ${version} is refused`, async () => {
      const said = await openssl('quit\n', option, '-cipher', 'ALL:@SECLEVEL=0')
      expect(said).toMatch(/Cipher is \(NONE\)|alert|no protocols available/)
      expect(said).not.toMatch(/^221 /m)
    }, 30_000)
  }

  test('the certificate has an ECDSA P-256 key and names the node', async () => {
    const said = await openssl('quit\n', '-showcerts')
    const pem = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/.exec(said)?.[0] ?? ''
    const text = await Bun.$`/usr/bin/openssl x509 -noout -text < ${Buffer.from(pem)}`.text()
    expect(text).toContain('Public-Key: (256 bit)')
    expect(text).toContain('NIST CURVE: P-256')
  }, 30_000)

  test('B08 a renegotiation is refused and the node lives', async () => {
    const said = await openssl('R\nquit\n', '-tls1_2')
    expect(said).not.toMatch(/^221 /m)
    const wire = await Wire.connect({ port: node.smtpPort })
    expect((await wire.reply()).code).toBe(220)
    wire.drop()
  }, 30_000)
})

test('B07 a handshake in single octets succeeds, and a mail goes through it', async () => {
  const slow = await slowProxy(node.smtpPort)
  try {
    const wire = await Wire.connect({ port: slow.port })
    await wire.reply()
    wire.send('EHLO client.example\r\n')
    await wire.reply()
    wire.send('STARTTLS\r\n')
    expect((await wire.reply()).code).toBe(220)
    await wire.startTls()
    for (const [line, code] of [
      ['EHLO client.example', 250],
      ['MAIL FROM:<s@client.example>', 250],
      ['RCPT TO:<slow@example.com>', 250],
      ['DATA', 354],
      ['X-Token: slowly\r\n\r\nx\r\n.', 250],
    ] as const) {
      wire.send(`${line}\r\n`)
      expect((await wire.reply(20_000)).code).toBe(code)
    }
    wire.drop()
    expect(await sink.until(() => sink.with('slowly').length === 1, 10_000)).toBeTrue()
  } finally {
    slow.stop()
  }
}, 60_000)

test(`B08 ${COUNTS.handshakes} handshakes at once leave other sessions quick, and no descriptor behind`, async () => {
  const before = descriptorsOf(node.pid)
  const waits: number[] = []
  let over = false
  const probe = async () => {
    const wire = await Wire.connect({ port: node.smtpPort })
    await wire.reply()
    while (!over) {
      const began = clock.monoMs()
      wire.send('NOOP\r\n')
      await wire.reply()
      waits.push(clock.monoMs() - began)
    }
    wire.drop()
  }
  const probing = probe()
  const began = clock.monoMs()
  let left = COUNTS.handshakes
  let done = 0
  const lane = async () => {
    while (left > 0) {
      left -= 1
      const wire = await Wire.connect({ port: node.smtpPort })
      await wire.reply()
      wire.send('EHLO client.example\r\n')
      await wire.reply()
      wire.send('STARTTLS\r\n')
      if ((await wire.reply()).code === 220) {
        await wire.startTls()
        done += 1
      }
      wire.drop()
    }
  }
  await Promise.all(Array.from({ length: 20 }, lane))
  const tookMs = clock.monoMs() - began
  over = true
  await probing
  waits.sort((one, other) => one - other)
  const p99 = waits[Math.floor(waits.length * 0.99)] ?? Number.POSITIVE_INFINITY
  console.info(
    `${done} handshakes in ${Math.round(tookMs)} ms, client on the same cores; a session beside them: p99 ${Math.round(p99)} ms of ${waits.length}`,
  )
  expect(done).toBe(COUNTS.handshakes)
  expect(p99).toBeLessThan(1_000)
  const deadline = clock.monoMs() + 5_000
  while (descriptorsOf(node.pid) > before + 2 && clock.monoMs() < deadline) await Bun.sleep(20)
  expect(descriptorsOf(node.pid)).toBeLessThanOrEqual(before + 2)
}, 60_000)

test('a client that leaves in the middle of a handshake costs nothing but its connection', async () => {
  const before = descriptorsOf(node.pid)
  for (let n = 0; n < 50; n += 1) {
    const wire = await Wire.connect({ port: node.smtpPort })
    await wire.reply()
    wire.send('EHLO client.example\r\nSTARTTLS\r\n'.slice(0, 21))
    await wire.reply()
    wire.send('STARTTLS\r\n')
    await wire.reply()
    wire.send(Buffer.from('1603010200010001fc0303', 'hex'))
    if (n % 2 === 0) wire.reset()
    else wire.drop()
  }
  const wire = await Wire.connect({ port: node.smtpPort })
  expect((await wire.reply()).code).toBe(220)
  wire.drop()
  const deadline = clock.monoMs() + 5_000
  while (descriptorsOf(node.pid) > before + 2 && clock.monoMs() < deadline) await Bun.sleep(20)
  expect(descriptorsOf(node.pid)).toBeLessThanOrEqual(before + 2)
}, 30_000)

test('a client that trusts nothing sees the same key as before a restart', async () => {
  const first = await keyOf(node.smtpPort)
  await node.stop()
  await node.begin()
  expect(await keyOf(node.smtpPort)).toBe(first)
}, 30_000)

async function keyOf(port: number): Promise<string> {
  const socket = net.connect({ port, host: '127.0.0.1' })
  const said = (until: RegExp) =>
    new Promise<void>((resolve) => {
      let text = ''
      const take = (bytes: Buffer) => {
        text += bytes.toString('latin1')
        if (!until.test(text)) return
        socket.off('data', take)
        resolve()
      }
      socket.on('data', take)
    })
  await said(/^220 .*\r\n/)
  socket.write('EHLO client.example\r\n')
  await said(/^250 .*\r\n/m)
  socket.write('STARTTLS\r\n')
  await said(/^220 .*\r\n/m)
  const secure = tls.connect({ socket, rejectUnauthorized: false })
  await new Promise<void>((resolve, reject) => {
    secure.once('secureConnect', () => resolve())
    secure.once('error', reject)
  })
  const { fingerprint256 } = secure.getPeerCertificate()
  secure.destroy()
  return fingerprint256
}

/** Passes on what the client says one octet at a time; what the server says as it comes. */
async function slowProxy(port: number): Promise<{ port: number; stop: () => void }> {
  const server = net.createServer((client) => {
    const upstream = net.connect({ port, host: '127.0.0.1' })
    upstream.setNoDelay(true)
    let waiting: number[] = []
    let isWriting = false
    const next = () => {
      const byte = waiting.shift()
      isWriting = byte !== undefined
      if (byte !== undefined) upstream.write(Uint8Array.of(byte), () => setImmediate(next))
    }
    client.on('data', (bytes: Buffer) => {
      waiting = waiting.concat([...bytes])
      if (!isWriting) next()
    })
    upstream.on('data', (bytes) => client.write(bytes))
    client.on('close', () => upstream.destroy())
    upstream.on('close', () => client.destroy())
    client.on('error', () => {})
    upstream.on('error', () => {})
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return { port: address.port, stop: () => server.close() }
}
