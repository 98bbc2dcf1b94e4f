// As small as a push server in Java can be: Netty in and out, one HTTP/2 connection for each event loop, on which the
// pushes of the loop's own callers go out. For java_netty.toml and java_netty_batch.toml.
// usage: java_netty PORT APNS_PORT CA KEY TOPIC
import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import io.netty.bootstrap.Bootstrap;
import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.SocketChannel;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.channel.socket.nio.NioSocketChannel;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.handler.codec.http2.AbstractHttp2ConnectionHandlerBuilder;
import io.netty.handler.codec.http2.DefaultHttp2Headers;
import io.netty.handler.codec.http2.Http2ConnectionDecoder;
import io.netty.handler.codec.http2.Http2ConnectionEncoder;
import io.netty.handler.codec.http2.Http2ConnectionHandler;
import io.netty.handler.codec.http2.Http2FrameAdapter;
import io.netty.handler.codec.http2.Http2Headers;
import io.netty.handler.codec.http2.Http2Settings;
import io.netty.handler.ssl.SslHandler;
import io.netty.util.collection.IntObjectHashMap;
import io.netty.util.concurrent.EventExecutor;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.Signature;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Consumer;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.TrustManagerFactory;

class JavaNetty {
    static final Gson GSON = new Gson();
    static final Map<EventExecutor, Apns> CONNECTIONS = new ConcurrentHashMap<>();

    public static void main(String[] words) throws Exception {
        int port = Integer.parseInt(words[0]);
        int apns = Integer.parseInt(words[1]);
        String authorization = "bearer " + providerToken(words[3]);
        SSLContext tls = trusting(words[2]);
        NioEventLoopGroup loops = new NioEventLoopGroup(Runtime.getRuntime().availableProcessors());
        List<EventExecutor> all = new ArrayList<>();
        loops.forEach(all::add);
        for (EventExecutor loop : all) {
            Apns connection = Apns.create("127.0.0.1:" + apns, authorization, words[4]);
            new Bootstrap().group((io.netty.channel.EventLoop) loop).channel(NioSocketChannel.class)
                .handler(new ChannelInitializer<SocketChannel>() {
                    @Override
                    protected void initChannel(SocketChannel channel) {
                        SSLEngine engine = tls.createSSLEngine("127.0.0.1", apns);
                        engine.setUseClientMode(true);
                        SSLParameters parameters = engine.getSSLParameters();
                        parameters.setApplicationProtocols(new String[] {"h2"});
                        engine.setSSLParameters(parameters);
                        channel.pipeline().addLast(new SslHandler(engine), connection);
                    }
                })
                .connect("127.0.0.1", apns).sync();
            CONNECTIONS.put(loop, connection);
        }
        new ServerBootstrap().group(new NioEventLoopGroup(1), loops).channel(NioServerSocketChannel.class)
            .childHandler(new ChannelInitializer<SocketChannel>() {
                @Override
                protected void initChannel(SocketChannel channel) {
                    channel.pipeline().addLast(new HttpServerCodec(), new HttpObjectAggregator(1 << 20), new Caller());
                }
            })
            .bind("127.0.0.1", port).sync().channel().closeFuture().sync();
    }

    static SSLContext trusting(String file) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream stream = Files.newInputStream(Path.of(file))) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(stream));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(null, trust.getTrustManagers(), null);
        return tls;
    }

    /** One for the whole run: it holds for an hour. */
    static String providerToken(String file) throws Exception {
        String pem = Files.readString(Path.of(file)).replaceAll("-----[A-Z ]+-----|\\s", "");
        var key = KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem)));
        String head = coded("{\"alg\":\"ES256\",\"kid\":\"ABC123DEFG\"}".getBytes(StandardCharsets.UTF_8));
        String claims = "{\"iss\":\"DEF123GHIJ\",\"iat\":" + System.currentTimeMillis() / 1000 + "}";
        String signed = head + "." + coded(claims.getBytes(StandardCharsets.UTF_8));
        Signature signature = Signature.getInstance("SHA256withECDSAinP1363Format");
        signature.initSign(key);
        signature.update(signed.getBytes(StandardCharsets.UTF_8));
        return signed + "." + coded(signature.sign());
    }

    static String coded(byte[] bytes) {
        return Base64.getUrlEncoder().withoutPadding().encodeToString(bytes);
    }

    /** A caller's connection: each request has tokens and a message. */
    static final class Caller extends SimpleChannelInboundHandler<FullHttpRequest> {
        @Override
        protected void channelRead0(ChannelHandlerContext context, FullHttpRequest request) {
            JsonObject body = GSON.fromJson(request.content().toString(StandardCharsets.UTF_8), JsonObject.class);
            JsonObject aps = new JsonObject();
            aps.add("alert", body.get("message"));
            JsonObject payload = new JsonObject();
            payload.add("aps", aps);
            byte[] bytes = GSON.toJson(payload).getBytes(StandardCharsets.UTF_8);
            List<String> results = new ArrayList<>();
            int count = body.getAsJsonArray("tokens").size();
            Apns apns = CONNECTIONS.get(context.executor());
            for (JsonElement token : body.getAsJsonArray("tokens")) {
                String text = token.getAsString();
                apns.send(text, bytes, delivered -> {
                    JsonObject result = new JsonObject();
                    result.addProperty("token", text);
                    result.addProperty("delivered", delivered);
                    results.add(GSON.toJson(result));
                    if (results.size() == count) {
                        answer(context, "{\"results\":[" + String.join(",", results) + "]}");
                    }
                });
            }
        }

        static void answer(ChannelHandlerContext context, String text) {
            ByteBuf content = Unpooled.copiedBuffer(text, StandardCharsets.UTF_8);
            var response = new DefaultFullHttpResponse(HttpVersion.HTTP_1_1, HttpResponseStatus.OK, content);
            response.headers().set("content-type", "application/json").set("content-length", content.readableBytes());
            context.writeAndFlush(response);
        }
    }

    /** A connection to the push service. */
    static final class Apns extends Http2ConnectionHandler {
        final IntObjectHashMap<Consumer<Boolean>> waiting = new IntObjectHashMap<>();
        final IntObjectHashMap<Boolean> accepted = new IntObjectHashMap<>();
        final String authority;
        final String authorization;
        final String topic;
        ChannelHandlerContext context;
        boolean isFlushing;

        static Apns create(String authority, String authorization, String topic) {
            return new Builder(authority, authorization, topic).build();
        }

        Apns(Http2ConnectionDecoder decoder, Http2ConnectionEncoder encoder, Http2Settings settings, Builder builder) {
            super(decoder, encoder, settings);
            authority = builder.authority;
            authorization = builder.authorization;
            topic = builder.topic;
        }

        @Override
        public void handlerAdded(ChannelHandlerContext context) throws Exception {
            super.handlerAdded(context);
            this.context = context;
        }

        void send(String token, byte[] payload, Consumer<Boolean> done) {
            int stream = connection().local().incrementAndGetNextStreamId();
            waiting.put(stream, done);
            Http2Headers headers = new DefaultHttp2Headers(false)
                .method("POST").scheme("https").authority(authority).path("/3/device/" + token)
                .set("authorization", authorization).set("apns-topic", topic).set("apns-push-type", "alert");
            encoder().writeHeaders(context, stream, headers, 0, false, context.newPromise());
            encoder().writeData(context, stream, Unpooled.wrappedBuffer(payload), 0, true, context.newPromise());
            // What is sent in one turn of the loop leaves together.
            if (!isFlushing) {
                isFlushing = true;
                context.executor().execute(() -> {
                    isFlushing = false;
                    flush(context);
                });
            }
        }

        void ended(int stream) {
            Consumer<Boolean> done = waiting.remove(stream);
            Boolean delivered = accepted.remove(stream);
            if (done != null) {
                done.accept(Boolean.TRUE.equals(delivered));
            }
        }

        static final class Builder extends AbstractHttp2ConnectionHandlerBuilder<Apns, Builder> {
            final String authority;
            final String authorization;
            final String topic;

            Builder(String authority, String authorization, String topic) {
                this.authority = authority;
                this.authorization = authorization;
                this.topic = topic;
                server(false);
                initialSettings(Http2Settings.defaultSettings().pushEnabled(false));
            }

            @Override
            protected Apns build() {
                Answers answers = new Answers();
                frameListener(answers);
                answers.apns = super.build();
                return answers.apns;
            }

            @Override
            protected Apns build(Http2ConnectionDecoder decoder, Http2ConnectionEncoder encoder, Http2Settings settings) {
                return new Apns(decoder, encoder, settings, this);
            }
        }
    }

    static final class Answers extends Http2FrameAdapter {
        Apns apns;

        @Override
        public void onHeadersRead(ChannelHandlerContext context, int stream, Http2Headers headers, int dependency,
                short weight, boolean exclusive, int padding, boolean isLast) {
            onHeadersRead(context, stream, headers, padding, isLast);
        }

        @Override
        public void onHeadersRead(ChannelHandlerContext context, int stream, Http2Headers headers, int padding,
                boolean isLast) {
            apns.accepted.put(stream, Boolean.valueOf("200".contentEquals(headers.status())));
            if (isLast) {
                apns.ended(stream);
            }
        }

        @Override
        public int onDataRead(ChannelHandlerContext context, int stream, ByteBuf data, int padding, boolean isLast) {
            int read = data.readableBytes() + padding;
            if (isLast) {
                apns.ended(stream);
            }
            return read;
        }

        @Override
        public void onRstStreamRead(ChannelHandlerContext context, int stream, long error) {
            apns.ended(stream);
        }
    }
}
