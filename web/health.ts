/** What machines ask without a page: is it alive, is it ready, its numbers, its files. */
import { Elysia, t } from 'elysia'
import { RefusalError } from '../src/base/errors.ts'
import type { Site } from './site.ts'

export function healthRoutes({ admin, assets, guard }: Site) {
  return new Elysia()
    .get('/livez', () => text('ok\n', 200))
    .get('/readyz', () => {
      const { ready, problems } = admin.status()
      return ready ? text('ready\n', 200) : text(`not ready\n${problems.join('\n')}\n`, 503)
    })
    .get('/metrics', ({ request }) => {
      const { client, author } = guard.visitOf(request)
      if (!client.trusted && author === null && !isLoopback(client.ip)) {
        throw new RefusalError(
          'unauthenticated',
          null,
          'Metrics are given on loopback only.',
          'Scrape 127.0.0.1 on this machine, or sign in.',
        )
      }
      return text(admin.metrics(), 200, 'text/plain; version=0.0.4; charset=utf-8')
    })
    .get(
      '/assets/:file',
      ({ params }) => {
        const asset = assets.find(params.file)
        if (asset === null) return text('not found\n', 404)
        return new Response(asset.text, {
          headers: {
            'content-type': asset.type,
            'cache-control': 'public, max-age=31536000, immutable',
          },
        })
      },
      { params: t.Object({ file: t.String({ maxLength: 100 }) }) },
    )
}

function text(body: string, status: number, type = 'text/plain; charset=utf-8'): Response {
  return new Response(body, { status, headers: { 'content-type': type } })
}

export function isLoopback(ip: string): boolean {
  return ip === '::1' || /^(?:::ffff:)?127\.\d+\.\d+\.\d+$/.test(ip)
}
