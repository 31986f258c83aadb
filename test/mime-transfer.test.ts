/** What decoders skip, drop and guess hides nothing: E14, E15, E20 and E24 of the catalogue. */
import { describe, expect, test } from 'bun:test'
import { zipSync } from 'fflate'
import { Mail } from '../src/message/mime.ts'
import { readTnef } from '../src/message/tnef.ts'
import { decodeBase64, decodeQuotedPrintable } from '../src/message/transfer.ts'
import { cte, EICAR, fate, file, findingsOf, HEAD, hex, mail } from './mime-world.ts'

const B64 = Buffer.from(EICAR).toString('base64')
const lines = (width: number, between = '\r\n', text = B64): string =>
  (text.match(new RegExp(`.{1,${width}}`, 'g')) ?? []).join(between)
/** Twice: the file, and two of it, so that the end of the first is not the end. */
const PAIR = Buffer.from(`${EICAR} `).toString('base64')

const BASE64: Readonly<Record<string, string>> = {
  'one digit a line': lines(1),
  'two digits a line': lines(2),
  'three digits a line': lines(3),
  'six digits a line': lines(6),
  'seven digits a line, LF': lines(7, '\n'),
  'a thousand digits a line': lines(1_000),
  'a blank in each group': lines(3, ' '),
  'a tab in each group': lines(3, '\t'),
  'a dot in each group': lines(3, '.'),
  'a dash in each group': lines(3, '-'),
  'a low line in each group': lines(3, '_'),
  'a number sign in each group': lines(3, '#'),
  'an exclamation mark behind each digit': lines(1, '!'),
  'four dots in a row': lines(12, '....'),
  'four equals signs in a row': lines(12, '===='),
  'an equals sign at each line end': lines(16, '=\r\n'),
  'an equals sign in each group': lines(3, '='),
  'an equals sign behind each digit': lines(1, '='),
  'NUL in each group': lines(3, '\0'),
  '8-bit signs in each group': lines(3, '\xe4'),
  'no padding': B64.replace(/=+$/, ''),
  'more padding': `${B64}====`,
  'wrong padding': B64.replace(/=+$/, '==='),
  'data behind padding': `${Buffer.from('ab').toString('base64')}\r\n${B64}`,
  'padding before all': `=${B64}`,
  'much padding before all': `====\r\n${B64}`,
  'streams in a row': [...EICAR.matchAll(/.{1,7}/g)]
    .map(([piece]) => Buffer.from(piece).toString('base64'))
    .join(''),
  'streams on lines of their own': [...EICAR.matchAll(/.{1,5}/g)]
    .map(([piece]) => Buffer.from(piece).toString('base64'))
    .join('\r\n'),
  'streams without padding on lines of their own': [...EICAR.matchAll(/.{1,5}/g)]
    .map(([piece]) => Buffer.from(piece).toString('base64').replace(/=+$/, ''))
    .join('\r\n'),
  'a sentence before': `See attached.\r\n${B64}`,
  'a word before on the same line': `!!!! ${B64}`,
  'a foot behind': `${B64}\r\n-- \r\nsent by a list\r\n`,
  'CR alone as line end': lines(16, '\r'),
  'LF and CR': lines(16, '\n\r'),
  'empty lines between': lines(16, '\r\n\r\n'),
  'a digit too many at the end': `${PAIR.replace(/=+$/, '')}A`,
}

const qp = (char: string): string => (/[A-Z0-9]/.test(char) ? char : hex(char))
const QP = [...EICAR].map(qp).join('')
/** In the middle, between two letters. */
const split = (between: string): string => {
  const at = QP.indexOf('STANDARD') + 1
  return `${QP.slice(0, at)}${between}${QP.slice(at)}`
}
const QUOTED: Readonly<Record<string, string>> = {
  'lower case': QP.replace(/=../g, (code) => code.toLowerCase()),
  'a mix of cases': QP.replace(/=(.)(.)/g, (_, a: string, b: string) => `=${a.toLowerCase()}${b}`),
  'all octets written out': [...EICAR].map(hex).join(''),
  'no octet written out': EICAR,
  'a soft break': split('=\r\n'),
  'a soft break of LF': split('=\n'),
  'a soft break of CR': split('=\r'),
  'a soft break of CR CR LF': split('=\r\r\n'),
  'a soft break of CR LF LF': split('=\r\n\n'),
  'a soft break of LF CR': split('=\n\r'),
  'a blank before a soft break': split(' =\r\n'),
  'a tab before a soft break': split('\t=\r\n'),
  'a blank in a soft break': split('= \r\n'),
  'a tab in a soft break': split('=\t\r\n'),
  'many blanks in a soft break': split(`=${' '.repeat(500)}\r\n`),
  'LF without soft break': split('\n'),
  'CR without soft break': split('\r'),
  'a tab that should not be': split('\x09=\r\n'),
  'a control that should not be': split('\x12'),
  'an 8-bit octet that should not be': split('\xaa'),
  'a NUL that should not be': split('\0'),
  'an equals sign at the line end, alone': split('=\r\n=\r\n'),
  'two equals signs at the line end': split('==\r\n'),
  'an equals sign and a digit at the line end': split('=2=\r\n'),
  'an equals sign and a sign at the line end': split('=@=\r\n'),
  'an equals sign inside': split('='),
  'two equals signs inside': split('=='),
  'an equals sign and half a code': split('=G'),
  'an equals sign and a sign': split('=@'),
  'an equals sign and two signs': split('=@@'),
  'an equals sign and a tab': split('=\t'),
  'an equals sign and a control': split('=\x12'),
  'a code of one digit': split('=0'),
  'a code with an x': split('=0x'),
  'a line of 10,000': `${'x'.repeat(10_000)}${QP}`,
  'a soft break at the end': `${QP}=`,
  'a soft break and blanks at the end': `${QP}= `,
  'half a code at the end': `${QP}=2`,
}

describe('E14 base64 that decoders take differently', () => {
  for (const [name, payload] of Object.entries(BASE64)) {
    test(`${name}: found or held, never clean`, () => {
      expect(fate(mail({ fields: file(cte('base64')), payload }))).not.toBe('clean')
    })
  }
  test('sound forms have one reading, and it is the content', () => {
    for (const width of [4, 60, 76, 1_000]) {
      const source = Buffer.from(`${lines(width)}\r\n`)
      const { contents, sound } = decodeBase64(source, 0, source.length)
      expect(contents.map((content) => content.toString('latin1'))).toEqual([EICAR])
      expect(sound).toBe(true)
    }
  })
  test('sound base64 is found and not held for its form', () => {
    expect(
      findingsOf(mail({ fields: file(cte('base64')), payload: lines(76) })).map(({ rule }) => rule),
    ).toEqual(['EICAR'])
  })
  test('each reading of malformed base64 is given, the most common first', () => {
    const readings = (text: string): readonly string[] =>
      decodeBase64(Buffer.from(text), 0, text.length).contents.map(String)
    expect(readings('QUI=REVG')[0]).toBe('ABDEF')
    expect(readings('QUJ=\nDREVG')).toContain('ABCDEF')
    expect(readings('QUI\nREVG')).toContain('ABDEF')
    expect(readings('QUJD!REVG')).toEqual(['ABCDEF'])
    expect(readings('QU-_!')).toEqual(['A', 'AO\ufffd'])
  })
  test('a malformed file is held even when no reading of it is bad, a malformed text is not', () => {
    for (const [encoding, payload] of [
      ['base64', 'dGVz!dA=='],
      ['base64', 'dGVz=dA=='],
      ['quoted-printable', 'te=st'],
    ] as const) {
      expect(fate(mail({ fields: file(cte(encoding)), payload }))).toBe('held')
      expect(fate(mail({ fields: ['Content-Type: text/plain', cte(encoding)], payload }))).toBe(
        'clean',
      )
    }
  })
  test('base64 above a megabyte comes out whole, however its lines are cut', () => {
    const bytes = Buffer.alloc(
      2_500_000,
      'some content that is not all alike \x00\xff\x17',
      'latin1',
    )
    for (const width of [61, 76, 77]) {
      const source = Buffer.from(lines(width, '\r\n', bytes.toString('base64')))
      const { contents, sound } = decodeBase64(source, 0, source.length)
      // Lines that are not of whole groups are another thing to those who read them one by one.
      expect(contents.length).toBe(width % 4 === 0 ? 1 : 2)
      expect(contents[0]?.equals(bytes)).toBe(true)
      expect(sound).toBe(true)
    }
  })
})

describe('E15 quoted-printable that decoders take differently', () => {
  for (const [name, payload] of Object.entries(QUOTED)) {
    test(`${name}: found or held, never clean`, () => {
      expect(fate(mail({ fields: file(cte('quoted-printable')), payload }))).not.toBe('clean')
    })
  }
  test('sound forms have one reading', () => {
    const source = Buffer.from(`a=3Db=\r\nc  d\r\n`)
    const { contents, sound } = decodeQuotedPrintable(source, 0, source.length, true)
    expect(contents.map(String)).toEqual(['a=bc  d\r\n'])
    expect(sound).toBe(true)
  })
  test('each reading of malformed quoted-printable is given', () => {
    const source = Buffer.from('a=@@@b \r\nc')
    const { contents, sound } = decodeQuotedPrintable(source, 0, source.length, false)
    expect(contents.map(String)).toEqual(['a=@@@b \r\nc', 'a@@@b\r\nc', 'a@@@bc', 'a@@bc', 'a@bc'])
    expect(sound).toBe(false)
  })
})

const uuLine = (bytes: Buffer): string => {
  const digit = (value: number): string => (value === 0 ? '`' : String.fromCharCode(value + 32))
  let line = digit(bytes.length)
  for (let at = 0; at < bytes.length; at += 3) {
    const bits = ((bytes[at] ?? 0) << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0)
    line += [18, 12, 6, 0].map((shift) => digit((bits >> shift) & 63)).join('')
  }
  return line
}
const uu = (text: string, name = 'att.bin', head = `begin 644 ${name}`): string => {
  const rows: string[] = []
  for (let at = 0; at < text.length; at += 45)
    rows.push(uuLine(Buffer.from(text.slice(at, at + 45), 'latin1')))
  return [head, ...rows, '`', 'end', ''].join('\r\n')
}
const yenc = (text: string): string => {
  const body = [...Buffer.from(text, 'latin1')].map((byte) => {
    const out = (byte + 42) & 255
    return [0, 10, 13, 61].includes(out)
      ? `=${String.fromCharCode((out + 64) & 255)}`
      : String.fromCharCode(out)
  })
  return `=ybegin line=128 size=${text.length} name=att.exe\r\n${body.join('')}\r\n=yend size=${text.length}\r\n`
}
const binhex = (content: string, name: string): string => {
  const data = Buffer.from(content, 'latin1')
  const head = Buffer.alloc(1 + name.length + 1 + 4 + 4 + 2 + 4 + 4 + 2)
  head[0] = name.length
  head.write(name, 1, 'latin1')
  head.writeUInt32BE(data.length, name.length + 12)
  const plain = Buffer.concat([head, data, Buffer.alloc(4)])
  const packed = Buffer.from([...plain].flatMap((byte) => (byte === 0x90 ? [0x90, 0] : [byte])))
  const digits = '!"#$%&\'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr'
  let out = ''
  let bits = 0
  let held = 0
  for (const byte of packed) {
    held = (held << 8) | byte
    bits += 8
    while (bits >= 6) {
      bits -= 6
      out += digits[(held >> bits) & 63] ?? ''
    }
    held &= (1 << bits) - 1
  }
  if (bits > 0) out += digits[(held << (6 - bits)) & 63] ?? ''
  return `(This file must be converted with BinHex 4.0)\r\n\r\n:${(out.match(/.{1,64}/g) ?? []).join('\r\n')}:\r\n`
}
const attribute = (id: number, data: Buffer): Buffer => {
  const head = Buffer.alloc(9)
  head[0] = 2
  head.writeUInt16LE(id, 1)
  head.writeUInt16LE(6, 3)
  head.writeUInt32LE(data.length, 5)
  return Buffer.concat([head, data, Buffer.alloc(2)])
}
const words = (...values: readonly number[]): Buffer => {
  const out = Buffer.alloc(values.length * 4)
  for (const [index, value] of values.entries()) out.writeUInt32LE(value >>> 0, index * 4)
  return out
}
const padded = (data: Buffer): Buffer =>
  Buffer.concat([data, Buffer.alloc((4 - (data.length % 4)) % 4)])
const property = (tag: number, data: Buffer): Buffer =>
  Buffer.concat([words(tag, 1, data.length), padded(data)])
const tnef = (...attributes: readonly Buffer[]): Buffer =>
  Buffer.concat([Buffer.from([0x78, 0x9f, 0x3e, 0x22, 1, 0]), ...attributes])
const attachedInTnef = (content: Buffer, name = 'att.exe'): Buffer =>
  tnef(
    attribute(0x9002, Buffer.alloc(14)),
    attribute(0x8010, Buffer.from('ATT~1.EXE\0')),
    attribute(0x800f, content),
    attribute(
      0x9005,
      Buffer.concat([
        words(2, 0x0b0003, 7),
        property(0x3707001f, Buffer.from(`${name}\0`, 'utf16le')),
      ]),
    ),
  )
const binary = Buffer.from(EICAR)

describe('E20 files in other wrappings', () => {
  const plain = (text: string, ...fields: readonly string[]): Buffer =>
    Buffer.from([...HEAD, ...fields, '', text].join('\r\n'), 'latin1')
  const rows: readonly (readonly [name: string, raw: Buffer, rules: readonly string[]])[] = [
    ['uuencode in a text', plain(`Hello\r\n\r\n${uu(EICAR)}`), ['EICAR']],
    ['uuencode in a text, a program by name', plain(uu('x', 'a.exe')), ['BAD_ATTACHMENT_NAME']],
    ['uuencode without a mode, two blanks', plain(uu(EICAR, '', 'begin  att.bin')), ['EICAR']],
    ['uuencode with spaces for zero', plain(uu(EICAR).replaceAll('`', ' ')), ['EICAR']],
    [
      'uuencode without an end',
      plain(uu(EICAR).replace('end\r\n', '')),
      ['EICAR', 'MIME_AMBIGUOUS'],
    ],
    [
      'uuencode with words between its lines',
      plain(uu(EICAR.repeat(2)).replace('\r\n', '\r\n')),
      ['EICAR'],
    ],
    [
      'uuencode in quoted-printable',
      plain(uu(EICAR).replaceAll('=', '=3D'), cte('quoted-printable')),
      ['EICAR'],
    ],
    [
      'uuencode in base64',
      plain(Buffer.from(uu(EICAR), 'latin1').toString('base64'), cte('base64')),
      ['EICAR'],
    ],
    [
      'uuencode as transfer encoding',
      mail({ fields: file(cte('x-uuencode')), payload: uu(EICAR) }),
      ['EICAR'],
    ],
    ['begin-base64', plain(`begin-base64 644 att.bin\r\n${lines(60)}\r\n====\r\n`), ['EICAR']],
    ['yEnc', plain(`Hello\r\n${yenc(EICAR)}`), ['BAD_ATTACHMENT_NAME', 'EICAR', 'EIGHT_BIT']],
    ['BinHex', plain(binhex(EICAR, 'att.exe')), ['BAD_ATTACHMENT_NAME', 'EICAR']],
    [
      'BinHex as a part',
      mail({
        fields: ['Content-Type: application/mac-binhex40; name=att.hqx'],
        payload: binhex(EICAR, 'att.bin'),
      }),
      ['EICAR'],
    ],
    [
      'TNEF',
      mail({
        fields: ['Content-Type: application/ms-tnef; name=winmail.dat', cte('base64')],
        payload: lines(76, '\r\n', attachedInTnef(binary).toString('base64')),
      }),
      ['BAD_ATTACHMENT_NAME', 'EICAR'],
    ],
    [
      'TNEF under another type',
      mail({
        fields: ['Content-Type: application/octet-stream', cte('base64')],
        payload: lines(76, '\r\n', attachedInTnef(binary, 'a.txt').toString('base64')),
      }),
      ['BAD_ATTACHMENT_NAME', 'EICAR'],
    ],
  ]
  for (const [name, raw, rules] of rows) {
    test(name, () => {
      const found = findingsOf(raw).map(({ rule }) => rule)
      for (const rule of rules.filter((each) => each !== 'EIGHT_BIT')) expect(found).toContain(rule)
    })
  }
  test('TNEF gives files, long names, bodies, and messages in messages', () => {
    const inner = Buffer.concat([Buffer.alloc(16, 7), attachedInTnef(binary, 'inner.exe')])
    const bytes = tnef(
      attribute(
        0x9003,
        Buffer.concat([
          words(2),
          words(0x80030003),
          Buffer.alloc(16),
          words(1, 6),
          padded(Buffer.from('a\0b\0\0\0')),
          words(9),
          property(0x10130102, Buffer.from('<p>Hi</p>')),
        ]),
      ),
      attribute(0x9002, Buffer.alloc(14)),
      attribute(
        0x9005,
        Buffer.concat([
          words(2),
          property(0x3001001e, Buffer.from('Inner\0')),
          property(0x3701000d, inner),
        ]),
      ),
    )
    const { files, broken } = readTnef(bytes)
    expect(
      files.map(({ names, content }) => [names, content.toString('latin1').slice(0, 9)]),
    ).toEqual([
      [[], '<p>Hi</p>'],
      [['ATT~1.EXE', 'inner.exe'], EICAR.slice(0, 9)],
    ])
    expect(broken).toBe(false)
  })
  test('TNEF cut short at any place, or with any octet changed, is answered', () => {
    const bytes = attachedInTnef(binary)
    for (let end = 6; end < bytes.length; end += 1) readTnef(bytes.subarray(0, end))
    for (let at = 0; at < bytes.length; at += 1) {
      const changed = Buffer.from(bytes)
      changed[at] = 0xff
      readTnef(changed)
    }
    expect(readTnef(bytes.subarray(0, 60)).broken).toBe(true)
  })
  test('TNEF that claims a billion properties is bounded and said', () => {
    const { broken } = readTnef(tnef(attribute(0x9005, words(0xffffffff, 0x37011003, 0xffffffff))))
    expect(broken).toBe(true)
  })
  test('TNEF in an archive is opened too', () => {
    const zip = Buffer.from(zipSync({ 'winmail.dat': attachedInTnef(binary) })).toString('base64')
    const fields = ['Content-Type: application/zip; name=a.zip', cte('base64')]
    const raw = mail({ fields, payload: lines(76, '\r\n', zip) })
    const inspectors = ['attachments', 'eicar', 'documents']
    const found = findingsOf(raw, inspectors).map(({ rule }) => rule)
    expect(found).toContain('BAD_ATTACHMENT_NAME')
    expect(found).toContain('EICAR')
  })
  test('a sentence that begins with begin is no file', () => {
    for (const text of [
      'begin with a smile\r\nand go on\r\n',
      'begin\r\nend\r\n',
      'beginning 644 x\r\n',
    ]) {
      expect(new Mail(plain(text)).parts.length).toBe(1)
    }
  })
  test('a thousand files in a text are bounded, and that is said', () => {
    const { parts, flaws } = new Mail(plain(uu('x').repeat(1_000)))
    expect(parts.length).toBe(51)
    expect(flaws.map(({ kind }) => kind)).toContain('ambiguous')
  })
})

describe('E24 a file where no part is', () => {
  const body = `${file(cte('base64')).join('\r\n')}\r\n\r\n${lines(76)}\r\n`
  const rows: readonly (readonly [string, Buffer])[] = [
    ['in the preamble', mail({ preamble: body, payload: 'x' })],
    ['in the preamble, as it is', mail({ preamble: `${EICAR}\r\n`, payload: 'x' })],
    ['in the epilogue', mail({ payload: 'x', epilogue: body })],
    [
      'uuencode in the text part',
      mail({ text: `Content-Type: text/plain\r\n\r\n${uu(EICAR)}\r\n`, payload: 'x' }),
    ],
    ['in the Subject', Buffer.from([`Subject: ${EICAR}`, 'From: a@b', '', 'x'].join('\r\n'))],
    [
      'in a parameter',
      mail({ fields: [`Content-Type: application/octet-stream; name="${EICAR}"`], payload: 'x' }),
    ],
    [
      'a header in a text without any multipart',
      Buffer.from([...HEAD, '', 'See below', '', body].join('\r\n')),
    ],
    [
      'a header in an inner message',
      Buffer.from(
        [...HEAD, 'Content-Type: message/rfc822', '', 'Subject: x', '', 'See below', '', body].join(
          '\r\n',
        ),
      ),
    ],
  ]
  for (const [name, raw] of rows) {
    test(`${name}: found`, () => {
      expect(fate(raw)).toBe('found')
    })
  }
  test('words about headers in a text are no flaw', () => {
    const raw = Buffer.from(
      [
        ...HEAD,
        '',
        'Your mail had',
        '',
        'Content-Type: text/html',
        '',
        'and we do not like it.',
        '',
      ].join('\r\n'),
    )
    expect(findingsOf(raw)).toEqual([])
  })
})

test('above the bound malformed encodings have one reading and are not sound', () => {
  const source = Buffer.from('AAA!'.repeat(2_200_000))
  const { contents, sound } = decodeBase64(source, 0, source.length)
  expect([contents.length, sound]).toEqual([1, false])
})
