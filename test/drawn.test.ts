/** Pictures that are bombs, and codes that are turned, cut up, or drawn instead of shown (row F12). */
import { describe, expect, test } from 'bun:test'
import { deflateSync } from 'node:zlib'
import { writeBarcode } from 'zxing-wasm/writer'
import { drawingsIn, linesOfMarkup } from '../src/mail/inspect/drawn.ts'
import { filesOf } from '../src/mail/inspect/files.ts'
import { framesOf } from '../src/mail/inspect/gif.ts'
import { links } from '../src/mail/inspect/links.ts'
import { Known, PLAIN_CONFIG } from '../src/mail/inspect/look.ts'
import { codesOf, isDrawn, readCodes } from '../src/mail/inspect/qr.ts'
import { viewOf } from '../src/mail/inspect/view.ts'
import { Mail } from '../src/message/mime.ts'
import { attached } from './attached.ts'
import { chunk, draw, type Gray, png, turned } from './codes.ts'
import { SESSION } from './look.ts'

const LINK = 'https://login.evil.example/mfa?u=1'

/** Rows of modules, true where dark. */
async function modules(text: string): Promise<readonly (readonly boolean[])[]> {
  const { symbol } = await writeBarcode(text, { format: 'QRCode', scale: 1 })
  const { width = 0, height = 0, data = [] } = symbol ?? {}
  return Array.from({ length: height }, (_, y) =>
    Array.from({ length: width }, (_, x) => (data[y * width + x] ?? 255) < 128),
  )
}

const CODE = await modules(LINK)

type Encode = (body: string) => readonly [name: string, encoded: string]
const ENCODINGS: readonly Encode[] = [
  (body) => ['base64', Buffer.from(body).toString('base64').replace(/.{76}/g, '$&\r\n')],
  (body) => ['quoted-printable', body.split('\n').map(quoted).join('\r\n')],
]

/** A line of text in lines of at most 75 octets (RFC 2045 section 6.7). */
function quoted(line: string): string {
  const octets = [...Buffer.from(line)].map((octet) =>
    octet > 32 && octet < 127 && octet !== 61
      ? String.fromCharCode(octet)
      : `=${octet.toString(16).toUpperCase().padStart(2, '0')}`,
  )
  return Array.from({ length: Math.ceil(octets.length / 25) }, (_, at) =>
    octets.slice(at * 25, at * 25 + 25).join(''),
  ).join('=\r\n')
}

function mailOf(type: string, body: string, encode: Encode = ENCODINGS[0] as Encode): Mail {
  const [encoding, encoded] = encode(body)
  return new Mail(
    Buffer.from(
      `From: a@sender.example\r\nMIME-Version: 1.0\r\nContent-Type: ${type}; charset=utf-8\r\nContent-Transfer-Encoding: ${encoding}\r\n\r\n${encoded}\r\n`,
    ),
  )
}

async function said(mail: Mail) {
  return await links.inspect({
    mail,
    session: SESSION,
    config: PLAIN_CONFIG,
    names: new Known({}),
    model: null,
    note: () => {},
    change: () => {},
  })
}

const evidence = 'leads to login.evil.example.'

const text = (dark: string, light: string): string =>
  CODE.map((row) => row.map((on) => (on ? dark : light)).join('')).join('\n')

/** Two rows a line. */
function halves(): string {
  const lines: string[] = []
  for (let y = 0; y < CODE.length; y += 2)
    lines.push(
      (CODE[y] ?? [])
        .map((on, x) => (on ? (CODE[y + 1]?.[x] ? '█' : '▀') : CODE[y + 1]?.[x] ? '▄' : ' '))
        .join(''),
    )
  return lines.join('\n')
}

function table(dark: string, light: string, row = '<tr>'): string {
  const rows = CODE.map((cells) => row + cells.map((on) => (on ? dark : light)).join(''))
  return `<table cellspacing="0">${rows.join('</tr>')}</tr></table>`
}

const page = (body: string): string => `<html><body><p>Scan to go on.</p>${body}</body></html>`
const breaks = (drawn: string): string => drawn.replaceAll('\n', '<br>\n')

const TEXTS: readonly (readonly [string, string, string])[] = [
  ['full blocks, two a module', 'text/plain', text('██', '  ')],
  ['half blocks', 'text/plain', halves()],
  ['squares', 'text/plain', text('⬛', '⬜')],
  ['shades of ASCII', 'text/plain', text('##', '  ')],
  ['two letters, the dark one first', 'text/plain', text('11', '00')],
  ['two letters, the dark one last', 'text/plain', text('..', '@@')],
  ['letters as high as wide', 'text/plain', text('X', ' ')],
  ['blocks in markup', 'text/html', page(`<pre style="line-height:1">${text('██', '  ')}</pre>`)],
  ['blocks behind entities', 'text/html', page(breaks(text('&#9608;&#x2588;', '&nbsp;&nbsp;')))],
  [
    'blocks in rows of their own',
    'text/html',
    page(`<div>${halves().replaceAll('\n', '</div><div>')}</div>`),
  ],
  ['ASCII with hard blanks', 'text/html', page(breaks(text('##', '&nbsp;&nbsp;')))],
  [
    'cells with colours',
    'text/html',
    page(table('<td bgcolor="#000000"></td>', '<td bgcolor="#ffffff"></td>')),
  ],
  [
    'cells with styles',
    'text/html',
    page(
      table('<td style="background:#223;width:4px"></td>', '<td></td>', '<tr style="height:4px">'),
    ),
  ],
  [
    'cells with classes',
    'text/html',
    page(`<style>.d{background-color:navy}</style>${table('<td class=d>', '<td>')}`),
  ],
  [
    'cells that span',
    'text/html',
    page(
      `<table>${CODE.map(
        (row) =>
          `<tr>${[
            ...row
              .map((on) => (on ? '1' : '0'))
              .join('')
              .matchAll(/1+|0+/g),
          ]
            .map(
              ([run]) =>
                `<td colspan="${run.length}" bgcolor="${run[0] === '1' ? 'black' : 'white'}">`,
            )
            .join('')}</tr>`,
      ).join('')}</table>`,
    ),
  ],
  [
    'a table in a table',
    'text/html',
    page(`<table><tr><td>${table('<td bgcolor=black>', '<td>')}</td></tr></table>`),
  ],
]

describe('a code that is drawn is read', () => {
  for (const [what, type, body] of TEXTS) {
    for (const encode of ENCODINGS) {
      const [encoding] = encode('')
      test(`${what}, ${encoding}`, async () => {
        const found = await said(mailOf(type, body, encode))
        expect(found.find(({ rule }) => rule === 'URL_QR')?.evidence).toContain(evidence)
      })
    }
  }

  test('a long link makes a large code, and it is read whether letters are tall or square', async () => {
    const long = `${LINK}&session=${'0123456789abcdef'.repeat(10)}`
    const rows = await modules(long)
    for (const [dark, light] of [
      ['##', '  '],
      ['⬛', '⬜'],
    ] as const) {
      const drawn = rows.map((row) => row.map((on) => (on ? dark : light)).join('')).join('\n')
      const { codes } = await codesOf(
        mailOf('text/plain', drawn),
        viewOf(mailOf('text/plain', drawn)),
      )
      expect(codes).toEqual([{ text: long, name: 'characters' }])
    }
  })

  test('what is drawn and no code says no link: rules, tables of figures, a banner', async () => {
    const figures = `<table>${`<tr>${'<td bgcolor="#eee">1</td>'.repeat(30)}</tr>`.repeat(30)}</table>`
    const banner = `${'='.repeat(70)}\n`.repeat(30)
    const sums = Array.from({ length: 40 }, (_, at) => `${at} `.repeat(20)).join('\n')
    for (const mail of [
      mailOf('text/html', figures),
      mailOf('text/plain', banner),
      mailOf('text/plain', sums),
    ])
      expect((await said(mail)).map(({ rule }) => rule)).not.toContain('URL_QR')
  })

  test('words are no drawing, whatever their lines are like', () => {
    expect(drawingsIn('a line of words\n'.repeat(100))).toEqual([])
    expect(drawingsIn(`${'-'.repeat(70)}\nwords\n`.repeat(100))).toEqual([])
    expect(drawingsIn(`${'X'.repeat(80)}\r\n`.repeat(100))).toEqual([])
    expect(linesOfMarkup('<p>words<br>and more</p>'.repeat(100))).toBe('')
    expect(isDrawn(text('██', '  '))).toBe(true)
  })

  test('endless drawings end', async () => {
    const wide = `${'█▄'.repeat(100)}\n`.repeat(5_000)
    const mail = mailOf('text/plain', wide)
    expect(viewOf(mail).drawings.map(({ lines }) => lines.length)).toEqual([250, 250])
    const cells = `<tr>${'<td colspan=200 bgcolor=black>'.repeat(100)}`.repeat(20)
    const view = viewOf(mailOf('text/html', `<table>${cells}`))
    expect(view.cells.reduce((sum, row) => sum + row.length, 0)).toBeLessThanOrEqual(100_000)
    expect(linesOfMarkup(`<pre>${'<'.repeat(1_000_000)}`).length).toBeLessThan(1_000_000)
  })
})

function mirrored({ width, height, gray }: Gray): Gray {
  const out = gray.map((_, at) => gray[at - (at % width) + width - 1 - (at % width)] ?? 255)
  return { width, height, gray: out }
}

describe('a code that is turned is read', async () => {
  const code = await draw(LINK)
  for (let degrees = 0; degrees < 360; degrees += 45) {
    for (const [how, of] of [
      ['', code],
      [' and mirrored', mirrored(code)],
    ] as const) {
      test(`by ${degrees} degrees${how}`, async () => {
        expect(await readCodes(png(turned(of, degrees)))).toEqual([LINK])
      })
    }
  }
})

/** The rectangle of a picture. */
function cut({ width, gray }: Gray, left: number, top: number, wide: number, high: number): Gray {
  const out = new Uint8Array(wide * high)
  for (let y = 0; y < high; y += 1)
    out.set(gray.subarray((top + y) * width + left, (top + y) * width + left + wide), y * wide)
  return { width: wide, height: high, gray: out }
}

describe('a code in pieces is read', async () => {
  const code = await draw(LINK)
  const { width } = code
  const half = width >> 1
  const third = Math.floor(width / 3)
  const forms: readonly (readonly [string, readonly Gray[]])[] = [
    ['two side by side', [cut(code, 0, 0, half, width), cut(code, half, 0, width - half, width)]],
    [
      'two on top of each other',
      [cut(code, 0, 0, width, half), cut(code, 0, half, width, width - half)],
    ],
    [
      'four in a table',
      [0, 1, 2, 3].map((at) => cut(code, (at % 2) * half, (at >> 1) * half, half, half)),
    ],
    [
      'six in two rows',
      [0, 1, 2, 3, 4, 5].map((at) => cut(code, (at % 3) * third, at < 3 ? 0 : half, third, half)),
    ],
  ]
  for (const [what, pieces] of forms) {
    test(what, async () => {
      const parts = pieces.map(
        (piece) =>
          `--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n${png(piece).toString('base64')}\r\n`,
      )
      const raw = `Content-Type: multipart/related; boundary=b\r\n\r\n${parts.join('')}--b--\r\n`
      const { codes } = await codesOf(new Mail(Buffer.from(raw)))
      expect(codes).toEqual([{ text: LINK, name: 'pictures side by side' }])
    })
  }
})

/** Of two colours, each pixel a code of its own: LZW that is never begun anew, in pieces of 100. */
function gifOf(frames: readonly Gray[], screen: number): Buffer {
  const head = Buffer.from('GIF89a\0\0\0\0\x80\0\0\0\0\0\xff\xff\xff', 'latin1')
  head.writeUInt16LE(screen, 6)
  head.writeUInt16LE(screen, 8)
  const parts = frames.map(({ width, height, gray }) => {
    const place = Buffer.alloc(11)
    place[0] = 0x2c
    place.writeUInt16LE(width, 5)
    place.writeUInt16LE(height, 7)
    place[10] = 2
    // Codes of three bits: 4 clears before the table grows, 5 ends.
    const codes: number[] = []
    gray.forEach((value, at) => {
      if (at % 2 === 0) codes.push(4)
      codes.push(value < 128 ? 0 : 1)
    })
    const bits = [...codes, 5].flatMap((code) => [code & 1, (code >> 1) & 1, code >> 2])
    const bytes = Buffer.from(
      Array.from({ length: Math.ceil(bits.length / 8) }, (_, at) =>
        bits.slice(at * 8, at * 8 + 8).reduce((sum, bit, place) => sum | (bit << place), 0),
      ),
    )
    const pieces: Buffer[] = []
    for (let at = 0; at < bytes.length; at += 100) {
      const piece = bytes.subarray(at, at + 100)
      pieces.push(Buffer.of(piece.length), piece)
    }
    return Buffer.concat([place, ...pieces, Buffer.of(0)])
  })
  return Buffer.concat([head, ...parts, Buffer.of(0x3b)])
}

const DOT: Gray = { width: 1, height: 1, gray: Uint8Array.of(255) }

function pictureMail(name: string, content: Buffer): Mail {
  return new Mail(
    Buffer.from(
      attached(name, content).toString('latin1').replace('application/octet-stream', 'image/png'),
      'latin1',
    ),
  )
}

describe('pictures that are bombs', async () => {
  const code = await draw(LINK)

  test('a PNG of 50,000 by 50,000 pixels is not decoded, and said', async () => {
    const head = Buffer.alloc(13)
    head.writeUInt32BE(50_000, 0)
    head.writeUInt32BE(50_000, 4)
    head[8] = 1
    const bomb = Buffer.concat([
      Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
      chunk('IHDR', head),
      chunk('IDAT', deflateSync(Buffer.alloc(6_251 * 50_000))),
      chunk('IEND', Buffer.of()),
    ])
    const found = await said(pictureMail('a.png', bomb))
    expect(found.map(({ rule, evidence: fact }) => [rule, fact])).toEqual([
      ['PICTURE_LIMIT', 'a.png has too many pixels to be searched for codes.'],
    ])
  }, 30_000)

  test('a code behind the first frame of a GIF is read', async () => {
    const { codes } = await codesOf(pictureMail('a.gif', gifOf([DOT, code, DOT], code.width)))
    expect(codes).toEqual([{ text: LINK, name: 'a.gif' }])
  })

  test('a GIF of 100,000 frames ends', async () => {
    const many = gifOf([...new Array<Gray>(100_000).fill(DOT), code], code.width)
    expect(framesOf(many)).toHaveLength(4)
    expect((await codesOf(pictureMail('a.gif', many))).codes).toEqual([])
    for (let at = 0; at < 200; at += 1) framesOf(many.subarray(0, at))
  })

  test('a TIFF whose directories lead in a circle shows nothing', async () => {
    const circle = Buffer.alloc(200)
    circle.write('II*\0\x08\0\0\0\x01\0', 'latin1')
    circle.writeUInt32LE(8, 22)
    expect(await readCodes(circle)).toEqual([])
    const { attachments, documents, files } = await filesOf({
      mail: pictureMail('a.tif', circle),
      config: PLAIN_CONFIG,
    })
    expect([...attachments, ...documents]).toEqual([])
    expect(files.map(({ type }) => type)).toEqual(['tiff'])
  })

  test.each([
    '<svg xmlns="http://www.w3.org/2000/svg"><script>fetch("/")</script></svg>',
    '<svg xmlns="http://www.w3.org/2000/svg" onload="fetch(1)"><rect/></svg>',
    '<x:svg xmlns:x="http://www.w3.org/2000/svg"><x:script href="data:,1"/></x:svg>',
    '<svg><a href="javascript:alert(1)"><text>Pay</text></a></svg>',
  ])('a drawing with a script is a finding: %s', async (drawing) => {
    const { documents } = await filesOf({
      mail: pictureMail('a.svg', Buffer.from(drawing)),
      config: PLAIN_CONFIG,
    })
    expect(documents.map(({ rule }) => rule)).toEqual(['DRAWING_SCRIPT'])
  })
})
