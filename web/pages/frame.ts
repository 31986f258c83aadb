/** The mail itself, under a policy of its own: shown in a frame without scripts, or downloaded. */
import { Elysia, t } from 'elysia'
import { previewOf } from '../parts/mail.ts'
import type { Site } from '../site.ts'

/**
 * Sandboxed without exceptions: an origin of its own, no scripts, no forms, no links out.
 * Styles are the page's own below; images are data inside the mail.
 */
const FRAME_POLICY =
  "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'"

const STYLE =
  'html{overflow-wrap:anywhere}body{margin:0;padding:20px 24px;font:15px/1.5 Arial,sans-serif;color:#222;background:#fff}h1{font-size:19px}h2{font-size:17px}img{max-width:100%;height:auto}pre{white-space:pre-wrap;font:13px/1.5 monospace;margin:0}table{max-width:100%}'

const ID = t.Object({ id: t.String({ maxLength: 64 }) })

export function framePages({ admin }: Site) {
  return new Elysia()
    .get(
      '/messages/:id/frame',
      async ({ params }) => {
        const preview = await previewOf(admin, params.id)
        const body =
          typeof preview === 'string'
            ? `<p>${Bun.escapeHTML(preview)}</p>`
            : (preview.html ??
              `<pre>${Bun.escapeHTML(preview.text ?? 'This mail has no text.')}</pre>`)
        // The only markup of a stranger that is ever sent; the inspector made it safe, and this
        // policy does not depend on it.
        return new Response(
          `<!doctype html><html><head><meta charset="utf-8"><title>Preview</title><style>${STYLE}</style></head><body>${body}</body></html>`,
          {
            headers: {
              'content-type': 'text/html; charset=utf-8',
              'content-security-policy': FRAME_POLICY,
            },
          },
        )
      },
      { params: ID },
    )
    .get('/messages/:id/source', ({ params }) => sourceOf(admin, params.id), { params: ID })
}

/** The bytes as received, never as something that a browser would open. */
export async function sourceOf(admin: Site['admin'], id: string): Promise<Response> {
  const { stream, sizeBytes } = await admin.heldSource(id)
  return new Response(stream, {
    headers: {
      'content-type': 'application/octet-stream',
      'content-disposition': `attachment; filename="${id.replace(/[^a-z0-9]/gi, '')}.eml"`,
      'content-length': String(sizeBytes),
      'content-security-policy': "default-src 'none'; sandbox",
    },
  })
}
