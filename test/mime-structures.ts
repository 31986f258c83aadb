/** Structures that readers take differently: E01 to E13 of the catalogue, for both encodings. */
import { type Case, cte, type Encoding, file, mail } from './mime-world.ts'

const att =
  (fields: readonly string[], more: Partial<Parameters<typeof mail>[0]> = {}) =>
  (encoding: Encoding): Buffer =>
    mail({ fields, payload: encoding.payload, ...more })

const byCte =
  (...values: readonly ((encoding: Encoding) => string)[]) =>
  (encoding: Encoding): Buffer =>
    mail({
      fields: file(...values.map((value) => cte(value(encoding)))),
      payload: encoding.payload,
    })

const valid = ({ name }: Encoding): string => name
const other = (encoding: Encoding): string => encoding.other
const halves = ({ name }: Encoding): readonly [string, string] => [name.slice(0, 3), name.slice(3)]

/** With another field of the message and other boundary lines. */
const bound =
  (type: string, line = '--foo', more: Partial<Parameters<typeof mail>[0]> = {}) =>
  (encoding: Encoding): Buffer =>
    mail({
      type: `Content-Type: ${type}`,
      open: line,
      next: line,
      close: `${line}--`,
      fields: file(cte(encoding.name)),
      payload: encoding.payload,
      ...more,
    })

const nested =
  (type: string, lines: readonly [string, string, string], end: string) => (encoding: Encoding) =>
    mail({
      text: 'Content-Type: text/plain\r\n\r\nSee attached.\r\n',
      fields: [
        type,
        '',
        lines[0],
        'Content-Type: text/plain',
        '',
        'x',
        lines[1],
        ...file(cte(encoding.name)),
      ],
      payload: encoding.payload,
      close: `${lines[2]}${end}`,
    })

const ROWS: Readonly<Record<string, readonly Case[]>> = {
  'E01 two transfer encodings': [
    ['the right one first', byCte(valid, other)],
    ['the right one last', byCte(other, valid)],
    ['wrong, right, right', byCte(other, valid, valid)],
    ['right, right, wrong', byCte(valid, valid, other)],
    ['an unknown one first', byCte(() => 'xxxxxxx', valid)],
    ['an unknown one last', byCte(valid, () => 'xxxxxxx')],
    ['7bit first', byCte(() => '7bit', valid)],
    ['an empty one first', byCte(() => '', valid)],
    ['an empty one last', byCte(valid, () => '')],
  ],
  'E02 a transfer encoding that is a list, quoted or unknown': [
    ['right, wrong', byCte((e) => `${e.name}, ${e.other}`)],
    ['wrong, right', byCte((e) => `${e.other}, ${e.name}`)],
    ['"right", wrong', byCte((e) => `"${e.name}", ${e.other}`)],
    ['"wrong", right', byCte((e) => `"${e.other}", ${e.name}`)],
    ['right; wrong', byCte((e) => `${e.name}; ${e.other}`)],
    ['right wrong', byCte((e) => `${e.name} ${e.other}`)],
    ['quoted', byCte((e) => `"${e.name}"`)],
    ['half quoted', byCte((e) => `"${e.name}`)],
    ['unknown', byCte(() => 'xxxxxxx')],
    ['doubled', byCte((e) => e.name + e.name)],
    ['with a digit more', byCte((e) => `${e.name}5`)],
    ['with a dash', byCte((e) => `${e.name}-`)],
    ['with an x', byCte((e) => `x-${e.name}`)],
    ['the field named twice', byCte((e) => `Content-Transfer-Encoding:${e.name}`)],
    ['utf-7', byCte(() => 'utf-7')],
    ['an encoded word', byCte((e) => `=?US-ASCII?Q?${e.name}?=`)],
    ['half an encoded word', byCte((e) => `${halves(e)[0]}=?US-ASCII?Q?${halves(e)[1]}?=`)],
    [
      'an encoded word with escapes',
      byCte((e) => `=?US-ASCII?Q?=${e.name.charCodeAt(0).toString(16)}${e.name.slice(1)}?=`),
    ],
    [
      'no field at all in an odd header',
      att([
        'Content-Type: application/octet-stream',
        'Content-Transfer-Encodin: x',
        ' Content-Transfer-Encoding: base64',
      ]),
    ],
  ],
  'E03 a transfer encoding with NUL, comment, odd case, fold': [
    ['odd case', byCte((e) => e.name.replace(/[abdept]/g, (char) => char.toUpperCase()))],
    ['a NUL before', byCte((e) => `\0${e.name}`)],
    ['a NUL inside', byCte((e) => halves(e).join('\0'))],
    ['a NUL behind', byCte((e) => `${e.name}\0`)],
    ['a comment before', byCte((e) => `(c)${e.name}`)],
    ['a comment behind', byCte((e) => `${e.name} (c)`)],
    ['a comment inside', byCte((e) => halves(e).join('(comment sentence)'))],
    ['in a comment', byCte((e) => `(${e.name})`)],
    ['in half a comment', byCte((e) => `(${e.name}`)],
    ['half a comment with the wrong one', byCte((e) => `${e.name}(${e.other}`)],
    ['a folded comment', byCte((e) => `(c\r\n c)${e.name}`)],
    ['a folded comment inside', byCte((e) => halves(e).join('(com\r\n ment)'))],
    ['folded inside', byCte((e) => halves(e).join('\r\n '))],
    ['folded behind the colon', byCte((e) => `\r\n ${e.name}`)],
    ['a comment that ends on the next line', byCte((e) => `${e.name}(${e.other}\r)`)],
    ['the same with LF', byCte((e) => `${e.name}(${e.other}\n)`)],
    ['the same with CRLF inside', byCte((e) => `${e.name}(${e.other}\r)\n`)],
    [
      'a comment in the name',
      (e) => mail({ fields: file(`Content-Transfer-Encoding(: )${e.name}`), payload: e.payload }),
    ],
    [
      'half a comment in the name',
      (e) => mail({ fields: file(`Content-Transfe(r-Encoding: ${e.name}`), payload: e.payload }),
    ],
    [
      'a fold before the colon',
      (e) => mail({ fields: file(`Content-Transfer-Encoding\r\n :${e.name}`), payload: e.payload }),
    ],
    ['a control character behind', byCte((e) => `${e.name}\x0b`)],
  ],
  'E04 two types, or a list of types': [
    [
      'file, multipart',
      (e) =>
        mail({
          fields: [
            'Content-Type: application/octet-stream; name=att',
            'Content-Type: multipart/mixed; boundary=bar',
            cte(e.name),
          ],
          payload: e.payload,
        }),
    ],
    [
      'multipart, file',
      (e) =>
        mail({
          fields: [
            'Content-Type: multipart/mixed; boundary=bar',
            'Content-Type: application/octet-stream; name=att',
            cte(e.name),
          ],
          payload: e.payload,
        }),
    ],
    [
      'file, multipart in one field',
      (e) =>
        mail({
          fields: [
            'Content-Type: application/octet-stream, multipart/mixed; boundary=bar',
            cte(e.name),
          ],
          payload: e.payload,
        }),
    ],
    [
      'multipart, file in one field',
      (e) =>
        mail({
          fields: [
            'Content-Type: multipart/mixed, application/octet-stream; boundary=bar',
            cte(e.name),
          ],
          payload: e.payload,
        }),
    ],
    [
      'message: multipart, file',
      bound('multipart/mixed; boundary=foo\r\nContent-Type: application/octet-stream'),
    ],
    [
      'message: file, multipart',
      bound('application/octet-stream\r\nContent-Type: multipart/mixed; boundary=foo'),
    ],
    [
      'message: text, multipart',
      bound('text/plain\r\nContent-Type: multipart/mixed; boundary=foo'),
    ],
    [
      'message: multipart, file in one field',
      bound('multipart/mixed, application/octet-stream; boundary=foo'),
    ],
    [
      'message: file, multipart in one field',
      bound('application/octet-stream, multipart/mixed; boundary=foo'),
    ],
    ['message: the type in the type', bound('Content-Type:multipart/mixed; boundary=foo')],
    ['message: the type twice in one word', bound('multipart/mixedmultipart/mixed; boundary=foo')],
    ['message: odd case', bound('mUltIpARt/mIxeD; boundary=foo')],
    ['message: NUL before', bound('\0multipart/mixed; boundary=foo')],
    ['message: NUL inside', bound('multipar\0t/mixed; boundary=foo')],
    ['message: NUL behind', bound('multipart/mixed\0; boundary=foo')],
    ['message: no type before the slash', bound('/mixed; boundary=foo')],
    ['message: text with a boundary', bound('text/plain; boundary=foo')],
    ['message: an unknown multipart', bound('multipart/x-unknown; boundary=foo')],
    ['message: multipart without subtype', bound('multipart; boundary=foo')],
    ['message: blank in the type', bound('multipart / mixed; boundary=foo')],
    [
      'no name of the field',
      (e) =>
        mail({ fields: [': application/octet-stream; name=att', cte(e.name)], payload: e.payload }),
    ],
  ],
  'E05 two boundary parameters': [
    ['foo; faa', bound('multipart/mixed; boundary=foo; boundary=faa')],
    ['faa; foo', bound('multipart/mixed; boundary=faa; boundary=foo')],
    ['foo, boundary=faa', bound('multipart/mixed; boundary=foo, boundary=faa')],
    ['faa, boundary=foo', bound('multipart/mixed; boundary=faa, boundary=foo')],
    [
      'two fields, the first holds',
      bound('multipart/mixed; boundary=foo\r\nContent-Type: multipart/mixed; boundary=faa'),
    ],
    [
      'two fields, the second holds',
      bound('multipart/mixed; boundary=faa\r\nContent-Type: multipart/mixed; boundary=foo'),
    ],
    [
      'both in turn',
      bound('multipart/mixed; boundary=foo, boundary=faa', '--foo', {
        open: '--faa',
        close: '--foo--\r\n--faa--',
      }),
    ],
    [
      'both in turn, the other way',
      bound('multipart/mixed; boundary=faa, boundary=foo', '--foo', {
        open: '--faa',
        close: '--foo--\r\n--faa--',
      }),
    ],
    [
      'two fields in turn',
      bound(
        'multipart/mixed; boundary=foo\r\nContent-Type: multipart/mixed; boundary=faa',
        '--foo',
        { open: '--faa', close: '--foo--\r\n--faa--' },
      ),
    ],
    ['one quoted', bound('multipart/mixed; boundary="faa"; boundary=foo')],
  ],
  'E06 a boundary by RFC 2231 or as encoded word': [
    ['in pieces', bound('multipart/mixed; boundary*0=f; boundary*1=oo')],
    ['in pieces out of order', bound('multipart/mixed; boundary*1=oo; boundary*0=f')],
    [
      'in pieces beside another',
      bound('multipart/mixed; boundary=faa; boundary*0=f; boundary*1=oo'),
    ],
    ['extended', bound("multipart/mixed; boundary*=us-ascii'en'f%6fo")],
    ['extended in pieces', bound("multipart/mixed; boundary*0*=us-ascii''f%6f; boundary*1=o")],
    ['an encoded word, decoded', bound('multipart/mixed; boundary==?US-ASCII?Q?foo?=')],
    [
      'an encoded word, as it is',
      bound('multipart/mixed; boundary==?US-ASCII?Q?foo?=', '--=?US-ASCII?Q?foo?='),
    ],
    ['a quoted encoded word', bound('multipart/mixed; boundary="=?utf-8?B?Zm9v?="')],
  ],
}

const SPELLINGS: readonly (readonly [written: string, lines: readonly string[]])[] = [
  ['foo,faa', ['foo,faa', 'foo', 'faa']],
  [' foo', ['foo', ' foo']],
  ['" foo"', ['foo', ' foo']],
  ['\0foo', ['foo', '\0foo']],
  ['"\0foo"', ['foo', '\0foo']],
  ['foo foo', ['foo', 'foo foo', 'foofoo']],
  ['"foo foo"', ['foo foo', '"foo foo"', 'foo']],
  ['foo;foo', ['foo', 'foo;foo']],
  ['"foo;foo"', ['foo;foo', '"foo;foo"', 'foo']],
  ['""foo', ['', 'foo', '""foo']],
  ['"bar"foo', ['bar', 'foo', '"bar"foo', 'barfoo']],
  ['bar"foo"', ['bar', 'foo', 'bar"foo"', 'barfoo']],
  ['', ['']],
  ['"', ['', '"']],
  ['""', ['', '""']],
  [';', ['', ';']],
  ['"foo', ['foo', '"foo']],
  ['foo"', ['foo', 'foo"']],
  ["'foo'", ['foo', "'foo'"]],
  ['foo\r\n foo', ['foo', 'foofoo', 'foo foo']],
  ['\r\n foofoo', ['foofoo']],
  [' \r\n foofoo', ['foofoo']],
  ['foo ', ['foo', 'foo ']],
  ['"foo "', ['foo', 'foo ']],
  ['foo\t', ['foo']],
  ['foo(foo)foo', ['foo(foo)foo', 'foofoo', 'foo']],
  ['(foo)1', ['(foo)1', '1']],
  ['(foofoofoo)', ['(foofoofoo)', '']],
  ['(foo', ['(foo', '']],
  ['foo(foo', ['foo(foo', 'foo']],
  ['"foo\\"bar"', ['foo"bar', 'foo\\"bar', 'foo\\']],
  ['f\\oo', ['foo', 'f\\oo']],
  ['"f\\oo"', ['foo', 'f\\oo']],
  ['foo\0bar', ['foo', 'foobar', 'foo\0bar']],
  ['foo\x0bbar', ['foo', 'foo\x0bbar', 'foobar']],
  ['foo\rbar', ['foo', 'foo\rbar']],
  ['=foo', ['=foo', 'foo']],
  ['%66oo', ['foo', '%66oo']],
  ['f\xf6\xf6', ['f\xf6\xf6']],
  ['x'.repeat(71), ['x'.repeat(71), 'x'.repeat(70)]],
  ['x'.repeat(100_000), ['x'.repeat(100_000), 'x'.repeat(70)]],
  ['--foo', ['--foo', 'foo']],
  ['foo--', ['foo--', 'foo']],
]

const LINES: readonly Case[] = [
  ['no semicolon before it', bound('multipart/mixed boundary=foo')],
  ['a comma before it', bound('multipart/mixed, boundary=foo')],
  ['two semicolons', bound('multipart/mixed;; boundary=foo')],
  ['a blank before =', bound('multipart/mixed; boundary =foo')],
  ['a NUL before =', bound('multipart/mixed; boundary\0=foo')],
  ['a fold before =', bound('multipart/mixed; boundary\r\n =foo')],
  ['a blank and a fold before =', bound('multipart/mixed; boundary \r\n =foo')],
  ['a colon for =', bound('multipart/mixed; boundary:foo')],
  ['odd case', bound('multipart/mixed; BounDary=foo')],
  ['another name', bound('multipart/mixed; bound=foo')],
  ['none', bound('multipart/mixed')],
  [
    'none, and one for the file',
    bound('multipart/mixed; bound=foo', '--foo', {
      fields: file(cte('base64')).map((field) => field.replace('name=att', 'boundary=faa')),
    }),
  ],
  ['a wrong one', bound('multipart/mixed; boundary=foo', '--faa')],
  [
    'a wrong one that the file names',
    (e) =>
      bound('multipart/mixed; boundary=foo', '--faa', {
        fields: ['Content-Type: application/octet-stream; boundary=faa', cte(e.name)],
      })(e),
  ],
  [
    'the file has a boundary of its own',
    (e) =>
      mail({
        fields: ['Content-Type: application/octet-stream; boundary=faa', cte(e.name)],
        payload: e.payload,
      }),
  ],
  [
    'a blank before the first line',
    (e) => mail({ open: ' --foo', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'a blank before the line of the file',
    (e) => mail({ next: ' --foo', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'a blank before the last line',
    (e) => mail({ close: ' --foo--', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'a blank behind the line',
    (e) => mail({ next: '--foo ', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'a word behind the line',
    (e) => mail({ next: '--foo bar', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'a semicolon behind the line',
    (e) => mail({ next: '--foo;', fields: file(cte(e.name)), payload: e.payload }),
  ],
  ['one dash', (e) => mail({ next: '-foo', fields: file(cte(e.name)), payload: e.payload })],
  ['three dashes', (e) => mail({ next: '---foo', fields: file(cte(e.name)), payload: e.payload })],
  [
    'odd case of the line',
    (e) => mail({ next: '--FOO', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'CR before the line',
    (e) =>
      mail({
        text: 'Content-Type: text/plain\r\n\r\nx\r',
        fields: file(cte(e.name)),
        payload: e.payload,
      }),
  ],
  [
    'CR and a sign before the line',
    (e) =>
      mail({
        text: 'Content-Type: text/plain\r\n\r\nx\r,',
        fields: file(cte(e.name)),
        payload: e.payload,
      }),
  ],
  [
    'CR behind the line',
    (e) => mail({ next: '--foo\rX-A: b', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'CR and a control behind the line',
    (e) => mail({ next: '--foo\r\x13X-A: b', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'an empty line behind the line',
    (e) => mail({ next: '--foo\r\n', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'only in the preamble',
    (e) =>
      mail({ preamble: `${file(cte(e.name)).join('\r\n')}\r\n\r\n${e.payload}\r\n`, payload: 'x' }),
  ],
  [
    'only in the epilogue',
    (e) =>
      mail({ payload: 'x', epilogue: `${file(cte(e.name)).join('\r\n')}\r\n\r\n${e.payload}\r\n` }),
  ],
]

const ENDS: readonly Case[] = [
  ['no last line', (e) => mail({ close: '', fields: file(cte(e.name)), payload: e.payload })],
  [
    'a last line without dashes',
    (e) => mail({ close: '--foo', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'a last line with one dash',
    (e) => mail({ close: '--foo-', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'text on the last line',
    (e) => mail({ close: '--foo--x', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'a part behind the end',
    (e) => mail({ next: '--foo--\r\n--foo', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'a header behind the end',
    (e) => mail({ next: '--foo--', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'a header behind the end and an empty line',
    (e) => mail({ next: '--foo--\r\n', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'an end before all parts',
    (e) => mail({ open: '--foo--\r\n--foo', fields: file(cte(e.name)), payload: e.payload }),
  ],
]

const INNER: readonly Case[] = [
  [
    'the outer boundary inside',
    nested(
      'Content-Type: multipart/mixed; boundary=faa',
      ['--faa', '--foo', '--faa'],
      '--\r\n--foo--',
    ),
  ],
  [
    'the same boundary',
    nested('Content-Type: multipart/mixed; boundary=foo', ['--foo', '--foo--', '--foo'], '--'),
  ],
  [
    'no boundary inside',
    nested('Content-Type: multipart/mixed', ['--faa', '--faa', '--faa'], '--\r\n--foo--'),
  ],
  [
    'no boundary inside, the outer one used',
    nested('Content-Type: multipart/mixed', ['--foo', '--foo', '--foo'], '--\r\n--foo--'),
  ],
  [
    'an inner multipart without body',
    (e) =>
      mail({
        text: 'Content-Type: multipart/mixed; boundary=bar\r\n\r\n\r\n',
        fields: file(cte(e.name)),
        payload: e.payload,
      }),
  ],
  [
    'the inner one is a prefix',
    nested('Content-Type: multipart/mixed; boundary=fo', ['--fo', '--fo', '--fo'], '--\r\n--foo--'),
  ],
  [
    'the outer one is a prefix',
    nested(
      'Content-Type: multipart/mixed; boundary=foobar',
      ['--foobar', '--foobar', '--foobar'],
      '--\r\n--foo--',
    ),
  ],
  [
    'a longer line before the file',
    (e) => mail({ next: '--foobar', fields: file(cte(e.name)), payload: e.payload }),
  ],
  [
    'a longer line before all',
    (e) =>
      mail({
        open: '--foobar',
        next: '--foobar',
        close: '--foobar--\r\n--foo\r\n\r\ny\r\n--foo--',
        fields: file(cte(e.name)),
        payload: e.payload,
      }),
  ],
  [
    'a blank before the inner type',
    nested(
      ' Content-Type: multipart/mixed; boundary=bar',
      ['--bar', '--bar', '--bar'],
      '--\r\n--foo--',
    ),
  ],
  [
    'a NUL before the inner type',
    nested(
      '\0Content-Type: multipart/mixed; boundary=bar',
      ['--bar', '--bar', '--bar'],
      '--\r\n--foo--',
    ),
  ],
]

const CONTROL = [
  '\r\n\r',
  '\r\n\n',
  '\r\r\n',
  '\n\r\n',
  '\r\r',
  '\n\n',
  '\n\r',
  '\r\n',
  '\r\n\r\r\n',
  '\r\n\n\r\n',
  '\r\n\r\n\r',
  '\r\n\r\n\n',
  '\r\n\r\n\r\n',
  '(\r\n\r\n',
  '(\r\n)\r\n',
  '(\n\r\n',
  '\r/\r\n',
  '\r<>\n\r\n',
  '\r\nc\n',
  '\r\n<\r\n',
  '\r\n\r""\n',
  '\r\n\0\r\n',
  '\r\n \r\n',
  '\r\n\t\r\n',
  '\0\r\n\r\n',
  '\r\n\r\n\0',
  '\r\n\x0b\r\n',
  '\r\n.\r\n',
  '\v\v',
  '\f\f',
]

const SEPARATORS: readonly Case[] = [
  ...CONTROL.map(
    (gap): Case => [
      JSON.stringify(gap),
      (e) => mail({ fields: file(cte(e.name)), gap, payload: e.payload }),
    ],
  ),
  [
    'the encoding behind the empty line',
    (e) => mail({ gap: `\r\n\r\n${cte(e.name)}\r\n\r\n`, payload: e.payload }),
  ],
  [
    'the same without an empty line',
    (e) => mail({ gap: `\r\n\r\n${cte(e.name)}\r\n`, payload: e.payload }),
  ],
  [
    'a sentence, then the encoding',
    (e) => mail({ gap: `\r\n\r\nA sentence.\r\n${cte(e.name)}\r\n\r\n`, payload: e.payload }),
  ],
  [
    'a sentence, the encoding, a sentence',
    (e) =>
      mail({
        gap: `\r\n\r\nA sentence.\r\n${cte(e.name)}\r\nA sentence.\r\n\r\n`,
        payload: e.payload,
      }),
  ],
  [
    'the same without an empty line behind',
    (e) =>
      mail({ gap: `\r\n\r\nA sentence.\r\n${cte(e.name)}\r\nA sentence.\r\n`, payload: e.payload }),
  ],
  [
    'a blank before the encoding',
    (e) => mail({ gap: `\r\n\r\n ${cte(e.name)}\r\n\r\n`, payload: e.payload }),
  ],
  [
    'a sentence for the empty line',
    (e) => mail({ gap: `\r\nA sentence.\r\n${cte(e.name)}\r\n`, payload: e.payload }),
  ],
  [
    'an empty line between the fields',
    (e) =>
      mail({
        fields: [
          'Content-Type: application/octet-stream; name=att',
          '',
          'Content-Disposition: attachment; filename=att.bin',
          cte(e.name),
        ],
        payload: e.payload,
      }),
  ],
  [
    'CR between the fields',
    (e) =>
      mail({
        fields: [
          'Content-Type: application/octet-stream; name=att',
          '\rContent-Disposition: attachment; filename=att.bin',
          cte(e.name),
        ],
        payload: e.payload,
      }),
  ],
  [
    'LF between the fields',
    (e) =>
      mail({
        fields: [
          'Content-Type: application/octet-stream; name=att',
          '\nContent-Disposition: attachment; filename=att.bin',
          cte(e.name),
        ],
        payload: e.payload,
      }),
  ],
]

const BREAKS = [
  '\r',
  '\n',
  '\n\r',
  '\r\r\n',
  '\r\n\n',
  '\r\n\r',
  '\n\r\n',
  '\r\x13',
  '\x13\n',
  '\r{}\n',
  '\r(\n)',
  '\r ',
  ' \n',
  '\r\0\n',
  '\0',
  '\r\n ',
  '\n ',
  '\r\n\t',
  '\r\n\0',
  '\r\n\x0b',
  '\v',
  '\f',
  '\x85',
  '\r\n#',
  '\r\n>',
]

const HEADER_LINES: readonly Case[] = BREAKS.flatMap((fieldEnd): Case[] => [
  [
    `${JSON.stringify(fieldEnd)} before it`,
    (e) =>
      mail({
        fields: [FIELDS[0], `${FIELDS[1]}${fieldEnd}${cte(e.name)}`, 'Content-ID: 3'],
        payload: e.payload,
      }),
  ],
  [
    `${JSON.stringify(fieldEnd)} behind it`,
    (e) =>
      mail({ fields: [...FIELDS, `${cte(e.name)}${fieldEnd}Content-ID: 3`], payload: e.payload }),
  ],
  [
    `${JSON.stringify(fieldEnd)} before the type of the message`,
    (e) =>
      mail({
        type: `X-A: b${fieldEnd}Content-Type: multipart/mixed; boundary=foo`,
        fields: file(cte(e.name)),
        payload: e.payload,
      }),
  ],
])
const FIELDS = [
  'Content-Type: application/octet-stream; name=att',
  'Content-Disposition: attachment; filename=att.bin',
] as const

const NAMES: readonly Case[] = (
  ['Content-Transfer-Encoding', 'content-transfer-encoding'] as const
).flatMap((name) =>
  (
    [
      ['a blank before', ` ${name}:`],
      ['a tab before', `\t${name}:`],
      ['a NUL before', `\0${name}:`],
      ['a control before', `\x01${name}:`],
      ['a blank behind', `${name} :`],
      ['a tab behind', `${name}\t:`],
      ['a NUL behind', `${name}\0:`],
      ['a NUL inside', `${name.slice(0, 9)}\0${name.slice(9)}:`],
      ['a blank inside', `${name.slice(0, 8)} ${name.slice(8)}:`],
      ['two colons', `${name}::`],
      ['an 8-bit sign before', `\xa0${name}:`],
      ['a mark of UTF-8 before', `\xef\xbb\xbf${name}:`],
    ] as const
  ).flatMap(([what, field]): Case[] => [
    [
      `${name}, ${what}, last`,
      (e) => mail({ fields: file(`${field} ${e.name}`), payload: e.payload }),
    ],
    [
      `${name}, ${what}, first`,
      (e) => mail({ fields: [`${field} ${e.name}`, ...file()], payload: e.payload }),
    ],
  ]),
)

const TYPE_NAMES: readonly Case[] = [' ', '\t', '\0', '\x01', '\xa0'].flatMap((sign): Case[] => [
  [
    `${JSON.stringify(sign)} before Content-Type`,
    (e) =>
      mail({
        type: `${sign}Content-Type: multipart/mixed; boundary=foo`,
        fields: file(cte(e.name)),
        payload: e.payload,
      }),
  ],
  [
    `${JSON.stringify(sign)} behind Content-Type`,
    (e) =>
      mail({
        type: `Content-Type${sign}: multipart/mixed; boundary=foo`,
        fields: file(cte(e.name)),
        payload: e.payload,
      }),
  ],
  [
    `${JSON.stringify(sign)} before Content-Type, first`,
    (e) =>
      mail({
        head: [`${sign}Content-Type: multipart/mixed; boundary=foo`, 'From: a@b'],
        type: 'X-A: b',
        fields: file(cte(e.name)),
        payload: e.payload,
      }),
  ],
])

/** By row of the catalogue. */
export const STRUCTURES: Readonly<Record<string, readonly Case[]>> = {
  ...ROWS,
  'E07 a boundary that readers spell differently': SPELLINGS.flatMap(([written, lines]) =>
    lines.map(
      (line): Case => [
        `${JSON.stringify(written.slice(0, 40))} by lines of ${JSON.stringify(line.slice(0, 40))}`,
        bound(`multipart/mixed; boundary=${written}`, `--${line}`),
      ],
    ),
  ),
  'E08 a boundary that is not said, or lines that are not it': LINES,
  'E09 no end, or something behind it': ENDS,
  'E10 multiparts in each other': INNER,
  'E11 between header and content': SEPARATORS,
  'E12 between the lines of a header': HEADER_LINES,
  'E13 blanks and NUL around the name of a field': [...NAMES, ...TYPE_NAMES],
}
