/** The files of the pages, embedded in the binary, each under an address made of its content. */
import sse from 'htmx.org/dist/ext/hx-sse.min.js' with { type: 'text' }
import htmx from 'htmx.org/dist/htmx.min.js' with { type: 'text' }
import css from './assets/app.css' with { type: 'text' }
import script from './assets/app.js' with { type: 'text' }
import mark from './assets/mark.svg' with { type: 'text' }

export type Asset = { readonly type: string; readonly text: string }

const FILES: readonly (readonly [name: string, asset: Asset])[] = [
  ['app.css', { type: 'text/css; charset=utf-8', text: css }],
  ['app.js', { type: 'text/javascript; charset=utf-8', text: script }],
  ['htmx.js', { type: 'text/javascript; charset=utf-8', text: htmx }],
  ['sse.js', { type: 'text/javascript; charset=utf-8', text: sse }],
  ['mark.svg', { type: 'image/svg+xml', text: mark }],
]

export class Assets {
  readonly #byName = new Map<string, Asset>()
  readonly #paths = new Map<string, string>()

  constructor() {
    for (const [name, asset] of FILES) {
      const hash = new Bun.CryptoHasher('sha256').update(asset.text).digest('hex').slice(0, 16)
      const hashed = name.replace('.', `.${hash}.`)
      this.#byName.set(hashed, asset)
      this.#paths.set(name, `/assets/${hashed}`)
    }
  }

  /** `/assets/app.0123456789abcdef.css` for `app.css`: may be kept for ever. */
  path(name: string): string {
    return this.#paths.get(name) ?? `/assets/${name}`
  }

  /** By the name in the address; null for any other. */
  find(hashedName: string): Asset | null {
    return this.#byName.get(hashedName) ?? null
  }
}
