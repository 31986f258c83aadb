/** Hostile names of files through a whole node: from the door to the log, the pages, scanners, reports (row F18). */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { existsSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { zipSync } from 'fflate'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { PROGRAM } from '../document-samples.ts'
import { HOSTILE_NAMES, MARK, STEERING } from '../hostile-names.ts'
import { Postern } from './postern.ts'
import { Sink } from './sink.ts'
import { Wire } from './wire.ts'

const clock = new SystemClock()
const base64 = (bytes: Uint8Array): string =>
  Buffer.from(bytes).toString('base64').replace(/.{76}/g, '$&\r\n')

/** As it is attached, twice: by RFC 2231 and as an encoded word; and what lies in its zip. */
function mailOf(name: string, index: number): string {
  const utf8 = Buffer.from(name)
  const percent = [...utf8].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')
  const pieces = percent.match(/.{1,60}/g) ?? []
  const continued = pieces.map(
    (piece, at) => ` filename*${at}*=${at === 0 ? "utf-8''" : ''}${piece}`,
  )
  const words = `=?utf-8?b?${utf8.toString('base64')}?=`
  const zip = zipSync({ [name.slice(0, 1_000)]: PROGRAM }, { mtime: '2026-11-22' })
  const part = (...lines: readonly string[]): string => `--b\r\n${lines.join('\r\n')}\r\n`
  return [
    'From: <sender@client.example>',
    'To: <ann@ours.example>',
    `Subject: ${words}`,
    'Date: Sun, 22 Nov 2026 03:00:00 +0000',
    `Message-ID: <${index}@client.example>`,
    'MIME-Version: 1.0',
    `Content-Type: multipart/mixed; boundary=b; name="${words}"`,
    '',
    part(
      `Content-Type: application/octet-stream`,
      `Content-Disposition: attachment;\r\n${continued.join(';\r\n')}`,
      'Content-Transfer-Encoding: base64',
      '',
      base64(PROGRAM),
    ) +
      part(
        `Content-Type: application/octet-stream; name="${words}"`,
        'Content-Transfer-Encoding: base64',
        '',
        base64(PROGRAM),
      ) +
      part(
        'Content-Type: application/zip; name="files.zip"',
        'Content-Transfer-Encoding: base64',
        '',
        base64(zip),
      ),
    '--b--',
    '',
  ].join('\r\n')
}

/** What an engine was sent besides the mail itself. */
type Heard = { readonly text: string }

function engine(
  heard: Heard[],
  answer: (said: string) => string | null,
): { port: number; stop(): void } {
  const server = Bun.listen<{ said: string }>({
    hostname: '127.0.0.1',
    port: 0,
    socket: {
      open: (socket) => {
        socket.data = { said: '' }
      },
      data: (socket, bytes) => {
        socket.data.said += bytes.toString('latin1')
        const said = answer(socket.data.said)
        if (said === null) return
        heard.push({ text: socket.data.said })
        socket.end(said)
      },
    },
  })
  return { port: server.port, stop: () => server.stop(true) }
}

type Row = { readonly id: string }

describe('a name of a file', () => {
  let node: Postern
  let sink: Sink
  const clamd: Heard[] = []
  const icap: Heard[] = []
  const rspamd: Heard[] = []
  const engines = [
    engine(clamd, (said) => (said.endsWith('\0\0\0\0') ? 'stream: OK\0' : null)),
    engine(icap, (said) => (said.endsWith('\r\n0\r\n\r\n') ? 'ICAP/1.0 204 No\r\n\r\n' : null)),
    engine(rspamd, (said) =>
      said.endsWith('--b--\r\n')
        ? 'HTTP/1.1 200 OK\r\nContent-Length: 34\r\n\r\n{"score":0.5,"required_score":15} '
        : null,
    ),
  ]
  let rows: readonly Row[] = []

  beforeAll(async () => {
    sink = new Sink({ keep: true })
    node = await Postern.start()
    await node.addDomain('ours.example', `smtp://127.0.0.1:${sink.port}`)
    await node.setAs('policy.reject', 1_000)
    const [a, b, c] = engines
    await node.setAs('engines.list', [
      `clamd clamd://127.0.0.1:${a?.port} pass`,
      `icap icap://127.0.0.1:${b?.port}/avscan pass`,
      `rspamd rspamd://127.0.0.1:${c?.port} pass`,
    ])
    for (const [index, name] of HOSTILE_NAMES.entries()) {
      const wire = await Wire.connect({ port: node.smtpPort })
      const say = async (line: string): Promise<void> => {
        wire.send(`${line}\r\n`)
        const { code, lines } = await wire.reply()
        expect(code).toBeLessThan(400)
        for (const one of lines) expect(one).not.toMatch(STEERING)
      }
      await wire.reply()
      await say('EHLO client.example')
      await say('MAIL FROM:<sender@client.example>')
      await say('RCPT TO:<ann@ours.example>')
      await say('DATA')
      await say(`${mailOf(name, index)}.`)
      wire.drop()
    }
    rows = await node.json<readonly Row[]>('quarantine', 'list')
  }, 120_000)
  afterAll(async () => {
    for (const { stop } of engines) stop()
    await node.dispose()
    sink.stop()
  })

  test('is held, each of them, and its findings are one clean line each', async () => {
    expect(rows).toHaveLength(HOSTILE_NAMES.length)
    for (const { id } of rows) {
      const shown = await node.json<object>('quarantine', 'show', id)
      const texts = stringsOf(shown)
      expect(texts.some((text) => text.startsWith('BAD_ATTACHMENT_'))).toBe(true)
      for (const text of texts) {
        expect(text).not.toMatch(STEERING)
        expect(text.length).toBeLessThan(1_000)
      }
    }
  }, 60_000)

  test('steers no terminal', async () => {
    const { out } = await node.command('quarantine', 'list')
    const shown = await Promise.all(
      rows.map(async ({ id }) => (await node.command('quarantine', 'show', id)).out),
    )
    for (const text of [out, ...shown])
      for (const line of text.split('\n')) expect(line).not.toMatch(STEERING)
  }, 60_000)

  test('is text on every page that shows it', async () => {
    for (const { id } of rows) {
      for (const path of [
        `/messages/${id}`,
        `/messages/${id}/preview`,
        '/messages',
        '/quarantine',
      ]) {
        const response = await node.fetch(path)
        const page = await response.text()
        expect(page).not.toContain('<img src=x')
        expect(page).not.toContain('<script>alert')
        for (const [key, value] of response.headers)
          expect(`${key}: ${value}`).not.toMatch(STEERING)
      }
    }
  }, 60_000)

  test('is in no line of the log', () => {
    const lines = node.log().trimEnd().split('\n')
    expect(lines.length).toBeGreaterThan(HOSTILE_NAMES.length)
    for (const line of lines) {
      expect(line).not.toMatch(STEERING)
      expect(line).not.toContain(MARK)
      expect(JSON.parse(line)).toHaveProperty('event')
    }
  })

  test('is told to no scanner but in the mail itself', () => {
    const head = (text: string, end: string): string => text.slice(0, text.indexOf(end))
    const heads = [
      ...clamd.map(({ text }) => text.slice(0, 14)),
      ...icap.map(({ text }) => head(text, 'From: <sender@client')),
      ...rspamd.map(({ text }) => head(text, '\r\n\r\n')),
    ]
    expect(heads).toHaveLength(3 * HOSTILE_NAMES.length)
    for (const text of heads) {
      expect(text).not.toMatch(/touch|script|injected|jndi|etc/i)
      expect(text.length).toBeLessThan(1_000)
    }
    expect(new Set(clamd.map(({ text }) => text.slice(0, 10)))).toEqual(new Set(['zINSTREAM\0']))
  })

  test('adds no field to what is delivered, and the mail is as it came', async () => {
    for (const { id } of rows)
      expect((await node.command('quarantine', 'release', id)).code).toBe(0)
    const endMono = clock.monoMs() + 30_000
    while (sink.arrivals.length < rows.length && clock.monoMs() < endMono) await pause(clock, 20)
    expect(sink.arrivals).toHaveLength(rows.length)
    for (const { body, dirt } of sink.arrivals) {
      const text = body?.toString('latin1') ?? ''
      expect(dirt).toEqual([])
      const fields = text
        .slice(0, text.indexOf('\r\n\r\n'))
        .replace(/\r\n[ \t]+/g, ' ')
        .split('\r\n')
      for (const field of fields) expect(field).toMatch(/^[A-Za-z-]+: [\x20-\x7e]*$/)
      expect(fields.map((field) => field.split(':')[0])).not.toContain('X-Injected')
      const index = Number(/^Message-ID: <(\d+)@/m.exec(text)?.[1])
      expect(behindHeader(text)).toBe(behindHeader(mailOf(HOSTILE_NAMES[index] ?? '', index)))
    }
  }, 60_000)

  test('was never run, and names no file', () => {
    expect(existsSync(join(tmpdir(), MARK))).toBe(false)
    const names = readdirSync(node.data, { recursive: true }).map(String)
    expect(names.length).toBeGreaterThan(0)
    for (const name of names) expect(name).not.toMatch(/\.exe|touch|cron|passwd|script/)
  })
})

function behindHeader(mail: string): string {
  return mail.slice(mail.indexOf('\r\n\r\n'))
}

function stringsOf(value: unknown): readonly string[] {
  if (typeof value === 'string') return [value]
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(stringsOf) : []
}
