/** A charset that lies, or that few know, hides no text: E22 of the catalogue. */
import { describe, expect, test } from 'bun:test'
import { viewOf } from '../src/mail/inspect/view.ts'
import { Mail } from '../src/message/mime.ts'
import { decodeUtf7, readingsOf, textsOf } from '../src/message/texts.ts'
import { cte, HEAD } from './mime-world.ts'

const WORDS = 'Grüße: <a href="https://evil.example/">日本</a>'
const utf16be = (text: string): Buffer => Buffer.from(text, 'utf16le').swap16()
const utf7 = (text: string): string =>
  text.replace(
    /[^A-Za-z0-9 .,:/-]+/g,
    (run) => `+${utf16be(run).toString('base64').replace(/=+$/, '')}-`,
  )

const text = (bytes: Uint8Array, charset: string | null): readonly string[] => {
  const mail = new Mail(
    Buffer.from(
      [
        ...HEAD,
        charset === null
          ? 'Content-Type: text/html'
          : `Content-Type: text/html; charset=${charset}`,
        cte('base64'),
        '',
        Buffer.from(bytes).toString('base64'),
        '',
      ].join('\r\n'),
    ),
  )
  const [part] = mail.leaves
  return part === undefined ? [] : textsOf(mail, part)
}

describe('E22 text in every charset that it may be in', () => {
  const rows: readonly (readonly [name: string, bytes: Uint8Array, charset: string | null])[] = [
    ['UTF-8', Buffer.from(WORDS), 'utf-8'],
    ['UTF-8 without a charset', Buffer.from(WORDS), null],
    ['UTF-8 that says it is Latin-1', Buffer.from(WORDS), 'iso-8859-1'],
    ['UTF-8 that says it is UTF-16', Buffer.from(WORDS), 'utf-16'],
    ['UTF-8 that says it is UTF-7', Buffer.from(WORDS), 'utf-7'],
    ['UTF-8 of a charset that nobody knows', Buffer.from(WORDS), 'x-none'],
    ['UTF-8 of a charset that is a path', Buffer.from(WORDS), '../../x'],
    ['UTF-7', Buffer.from(utf7(WORDS), 'latin1'), 'utf-7'],
    ['UTF-7 by another name', Buffer.from(utf7(WORDS), 'latin1'), 'UNICODE-1-1-UTF-7'],
    ['UTF-16LE', Buffer.from(WORDS, 'utf16le'), 'utf-16le'],
    ['UTF-16LE that says it is UTF-8', Buffer.from(WORDS, 'utf16le'), 'utf-8'],
    [
      'UTF-16LE with a mark that says it is ASCII',
      Buffer.from(`\ufeff${WORDS}`, 'utf16le'),
      'us-ascii',
    ],
    ['UTF-16BE', utf16be(WORDS), 'utf-16be'],
    ['UTF-16BE with a mark', utf16be(`\ufeff${WORDS}`), 'utf-16'],
    ['UTF-16BE that says nothing', utf16be(WORDS), null],
  ]
  for (const [name, bytes, charset] of rows) {
    test(name, () => {
      expect(text(bytes, charset).map((each) => each.replace('\ufeff', ''))).toContain(WORDS)
    })
  }
  const japanese = Buffer.from('\x1b$BF|K\\\x1b(B evil.example', 'latin1')
  for (const charset of ['iso-2022-jp', 'us-ascii', 'utf-8', null]) {
    test(`ISO-2022-JP that says it is ${charset}`, () => {
      expect(text(japanese, charset)).toContain('日本 evil.example')
    })
  }
  test('plain ASCII has one reading whatever it says', () => {
    for (const charset of [null, 'utf-8', 'us-ascii', 'iso-8859-1', 'koi8-r', 'x-none']) {
      expect(text(Buffer.from('Hello + you'), charset)).toEqual(['Hello + you'])
    }
  })
  test('UTF-7 has a plus, and what is no base64 stays', () => {
    expect(decodeUtf7(Buffer.from('a +- b + c'))).toBe('a + b + c')
  })
  test('a link is seen by all inspectors in whatever charset it is', () => {
    for (const [bytes, charset] of [
      [Buffer.from(utf7(WORDS), 'latin1'), 'utf-7'],
      [Buffer.from(WORDS), 'utf-16le'],
      [Buffer.from(WORDS, 'utf16le'), 'utf-8'],
    ] as const) {
      const fields = [`Content-Type: text/html; charset=${charset}`, cte('base64')]
      const raw = Buffer.from([...HEAD, ...fields, '', bytes.toString('base64'), ''].join('\r\n'))
      expect(viewOf(new Mail(raw)).links.map(({ host }) => host)).toContain('evil.example')
    }
  })
  test('texts are bounded', () => {
    const [first] = readingsOf(Buffer.alloc(3_000_000, 'a'), 'utf-8')
    expect(first?.length).toBe(1024 * 1024)
  })
  for (const charset of [
    '__proto__',
    'constructor',
    'toString',
    '',
    ' ',
    'utf-8\0',
    'x'.repeat(10_000),
  ]) {
    test(`a charset called ${JSON.stringify(charset.slice(0, 20))} is no harm`, () => {
      expect(text(Buffer.from('Hello'), charset)[0]).toBe('Hello')
    })
  }
})
