/** QR codes in a mail: read in every usual form, also by the compiled program inside its walls. */
import { afterAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SystemClock } from '../src/base/clock.ts'
import { Observer } from '../src/base/observe.ts'
import { links } from '../src/mail/inspect/links.ts'
import { Known, PLAIN_CONFIG } from '../src/mail/inspect/look.ts'
import { createInspectors } from '../src/mail/inspect/pool.ts'
import { codesOf, hasSquares, isDrawn, readCodes } from '../src/mail/inspect/qr.ts'
import { Mail } from '../src/message/mime.ts'
import type { Insight } from '../src/message/verdict.ts'
import { beside, draw, type Gray, png, turned } from './codes.ts'
import { ENVELOPE, SESSION } from './look.ts'

const LINK = 'https://login.evil.example/mfa?u=1'

/** Inside a larger picture with lines, as a letter with a code has them. */
function inside(code: Gray, width: number, height: number): Gray {
  const gray = new Uint8Array(width * height).fill(250)
  for (let y = 10; y < height; y += 14) {
    for (let x = 10; x < width * 0.6; x += 1) if ((x * 7 + y) % 5 < 3) gray[y * width + x] = 30
  }
  for (let y = 0; y < code.height; y += 1) {
    gray.set(
      code.gray.subarray(y * code.width, (y + 1) * code.width),
      (y + 60) * width + width - code.width - 20,
    )
  }
  return { width, height, gray }
}

function mailOf(picture: Buffer, text = 'Scan this.'): Buffer {
  return Buffer.from(
    [
      'From: a@sender.example',
      'Subject: x',
      'MIME-Version: 1.0',
      'Content-Type: multipart/related; boundary=b',
      '',
      '--b',
      'Content-Type: text/html',
      '',
      `<p>${text}</p><img src="cid:1">`,
      '--b',
      'Content-Type: image/png; name="code.png"',
      'Content-Transfer-Encoding: base64',
      'Content-ID: <1>',
      '',
      picture.toString('base64').replace(/.{76}/g, '$&\r\n'),
      '--b--',
      '',
    ].join('\r\n'),
  )
}

describe('a code is read', async () => {
  const code = await draw(LINK)
  const small = await draw(LINK, 2)
  const light: Gray = { ...code, gray: code.gray.map((value) => 255 - value) }
  const pale: Gray = { ...code, gray: code.gray.map((value) => (value === 0 ? 120 : 225)) }
  const forms: readonly [string, () => Buffer | Promise<Buffer>][] = [
    ['PNG', () => png(code)],
    ['JPEG', () => new Bun.Image(png(code)).jpeg({ quality: 60 }).buffer()],
    ['WebP', () => new Bun.Image(png(code)).webp({ quality: 60 }).buffer()],
    ['small', () => png(small)],
    ['light on dark', () => png(light)],
    ['pale', () => png(pale)],
    ['a quarter turned', () => new Bun.Image(png(code)).rotate(90).png().buffer()],
    ['upside down', () => new Bun.Image(png(code)).rotate(180).png().buffer()],
    ['mirrored', () => new Bun.Image(png(code)).flop().png().buffer()],
    ['turned by 30 degrees', () => png(turned(code, 30))],
    ['in a corner of a letter', () => png(inside(code, 900, 1_200))],
    ['in a large picture', () => png(inside(code, 2_000, 1_600))],
  ]
  for (const [what, picture] of forms) {
    test(what, async () => {
      expect(await readCodes(await picture())).toEqual([LINK])
    })
  }
})

test('what is no code costs no reader: noise, stripes, plain pictures', () => {
  let seed = 1
  const noise = new Uint8Array(300 * 300).map(() => {
    seed = (seed * 1_103_515_245 + 12_345) & 0x7fffffff
    return (seed >> 16) & 255
  })
  const stripes = new Uint8Array(300 * 300).map((_, at) => ((at >> 3) % 2) * 255)
  for (const gray of [stripes, new Uint8Array(300 * 300).fill(200)]) {
    expect(hasSquares({ width: 300, height: 300, gray })).toBe(false)
  }
  expect(typeof hasSquares({ width: 300, height: 300, gray: noise })).toBe('boolean')
})

test('a bomb, half a picture and no picture show none', async () => {
  const whole = png(await draw(LINK))
  const bomb = Buffer.from(whole)
  bomb.writeUInt32BE(60_000, 16)
  bomb.writeUInt32BE(60_000, 20)
  expect(await readCodes(bomb)).toEqual([])
  expect(await readCodes(whole.subarray(0, 200))).toEqual([])
  expect(await readCodes(Buffer.from('/etc/passwd'))).toEqual([])
  expect(await readCodes(Buffer.of())).toEqual([])
})

test('a mail of sixty codes gives eight, the same at each look', async () => {
  const parts = Array.from(
    { length: 20 },
    () => '--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n',
  )
  const three = [
    await draw('http://a.example/1'),
    await draw('http://a.example/2'),
    await draw('http://a.example/3'),
  ]
  const picture = png(beside(three)).toString('base64')
  const raw = Buffer.from(
    `Content-Type: multipart/mixed; boundary=b\r\n\r\n${parts.map((part) => `${part}${picture}\r\n`).join('')}--b--\r\n`,
  )
  const first = await codesOf(new Mail(raw))
  expect(first.codes).toHaveLength(8)
  expect(await codesOf(new Mail(raw))).toEqual(first)
})

test('the link of a code is judged, noted, and weighs more where nothing else is said', async () => {
  const noted: string[] = []
  const look = async (raw: Buffer) =>
    await links.inspect({
      mail: new Mail(raw),
      session: SESSION,
      config: PLAIN_CONFIG,
      names: new Known({}),
      model: null,
      note: (seen: Partial<Insight>) => noted.push(...(seen.urls ?? [])),
      change: () => {},
    })
  const bare = await look(mailOf(png(await draw('http://paypa1.com/x'))))
  expect(bare.map(({ rule, score }) => [rule, score])).toEqual([
    ['URL_QR', 2.5],
    ['URL_LOOKALIKE', 4],
  ])
  expect(bare[0]?.evidence).toBe('A QR code in code.png leads to paypa1.com.')
  expect(noted).toEqual(['http://paypa1.com/x'])
  const long = `${'Your ticket for the concert. '.repeat(40)}<a href="https://tickets.example/">more</a>`
  const ticket = await look(mailOf(png(await draw(LINK)), long))
  expect(ticket.map(({ rule, score }) => [rule, score])).toEqual([['URL_QR', 1]])
  const inside = `<img src="data:image/png;base64,${png(await draw(LINK)).toString('base64')}">`
  const marked = await look(Buffer.from(`Content-Type: text/html\r\n\r\n${inside}`))
  expect(marked[0]?.evidence).toBe('A QR code in the markup leads to login.evil.example.')
  expect(await look(mailOf(png(await draw('WIFI:S:guests;;'))))).toEqual([])
})

test('a code that is drawn of characters or cells is a finding', async () => {
  const code = `${'█▀▀▀▀▀█ ▄▀ █▀▀▀▀▀█\n'.repeat(12)}`
  expect(isDrawn(code)).toBe(true)
  expect(isDrawn('■ one\n■ two\n■■■■■■■■■■\n')).toBe(false)
  const row = `<tr>${'<td bgcolor="#000000"></td><td bgcolor="#ffffff"></td>'.repeat(11)}</tr>`
  const mail = new Mail(
    Buffer.from(
      `Content-Type: text/html\r\n\r\n<table bgcolor="#eeeeee">${row.repeat(21)}</table>`,
    ),
  )
  const found = await links.inspect({
    mail,
    session: SESSION,
    config: PLAIN_CONFIG,
    names: new Known({}),
    model: null,
    note: () => {},
    change: () => {},
  })
  expect(found).toMatchObject([{ rule: 'URL_QR_DRAWN', score: 3 }])
})

describe('the compiled program', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'postern-qr-'))
  afterAll(() => rmSync(scratch, { recursive: true }))

  test('reads a code inside its walls', async () => {
    const binary = join(scratch, 'inspector')
    const build = Bun.spawn(
      [
        process.execPath,
        'build',
        '--compile',
        '--minify-whitespace',
        '--minify-syntax',
        '--no-compile-autoload-dotenv',
        '--no-compile-autoload-bunfig',
        join(import.meta.dir, 'process/inspector.ts'),
        '--outfile',
        binary,
      ],
      { stdout: 'ignore', stderr: 'pipe' },
    )
    if ((await build.exited) !== 0) throw new Error(await new Response(build.stderr).text())
    const clock = new SystemClock()
    const pool = createInspectors(
      { command: [binary, 'inspector'], processes: 1, spoolDir: scratch },
      { clock, observer: new Observer(clock, () => {}) },
    )
    try {
      const { findings, unknowns, insight } = await pool.inspect({
        envelope: ENVELOPE,
        body: { kind: 'memory', bytes: mailOf(png(await draw(LINK))) },
        inspectors: ['text', 'links'],
        config: PLAIN_CONFIG,
        clientName: null,
        sha256: null,
        budgetMs: 20_000,
      })
      expect(unknowns).toEqual([])
      expect(findings.map(({ rule }) => rule)).toContain('URL_QR')
      expect(insight?.urls).toContain(LINK)
    } finally {
      await pool.close()
    }
  }, 60_000)
})
